// Talks in the chat with Chromium: chat.cjs CHROMIUM URL SCREENSHOTS, where SCREENSHOTS is the beginning of their paths.
const {accessible, check, count, cut, enter, fits, hold, intercept, launch, line, lines, open, passed, say, status, tabStops, until, who} =
  require('./page.cjs');

const [executablePath, url, screenshots] = process.argv.slice(2);
/** The example's CHAT_SWEEP_PERIOD, and how much longer the test waits before it gives up, in milliseconds. */
const PERIOD = 3000, SLACK = 3000;
const sleep = time => new Promise(done => setTimeout(done, time));

async function login(browser) {
  const response = await fetch(url);
  const policy = response.headers.get('content-security-policy');
  check('the content security policy is strict', policy?.includes("default-src 'none'") && !/unsafe|\*/.test(policy), policy);
  const page = await open(browser, url);
  await accessible(page, 'the login form');
  await fits(page, 'the login form', 390, 844, `${screenshots}-login-390.png`);
  await fits(page, 'the login form', 1280, 640, `${screenshots}-login-1280.png`);
  const stops = await tabStops(page);
  check('the keyboard reaches the login form', stops.join() === 'name,room,enter-button', stops);
  page.tolerated = /status of 400/;
  await page.evaluate(() => document.getElementById('name').removeAttribute('maxlength'));
  await page.type('#name', 'x'.repeat(33));
  await page.keyboard.press('Enter');
  await until(page, () => document.querySelector('#enter-error[role=alert]').textContent === 'A name has 1 to 32 characters.');
  check('a refused login shows the error inline', await page.$eval('#name', input => input.value.length === 33));
  await page.close();
}

/** Two people talk, a third joins, and one of them is lost. */
async function conversation(browser, other) {
  const alice = await enter(browser, url, 'alice');
  const bob = await enter(browser, url, 'bob');
  await line(alice, 'bob joined');
  check('two tabs see each other', (await who(alice)) === 'alice, bob' && (await who(bob)) === 'alice, bob');
  await say(alice, 'hello <b>bob</b>');
  await line(bob, 'alice: hello <b>bob</b>');
  await line(alice, 'You: hello <b>bob</b>');
  await say(bob, 'hello alice, 你好 🦀');
  await line(alice, 'bob: hello alice, 你好 🦀');
  check('two tabs talk', true);
  const elsewhere = await enter(browser, url, 'dave', 'kitchen');
  const again = await enter(other, url, 'bob');
  const carol = await enter(other, url, 'carol');
  await line(alice, 'carol joined');
  check('a person with two tabs is listed once', (await who(alice)) === 'alice, bob, carol');
  check('and joins once', (await count(alice, 'bob joined')) === 1);
  check('another room gets nothing', (await lines(elsewhere)).length === 0);
  await elsewhere.close();
  await say(carol, 'x'.repeat(1000));
  await line(alice, `carol: ${'x'.repeat(1000)}`);
  await say(carol, 'my browser will crash');
  await line(alice, 'carol: my browser will crash');

  // The browser dies without a close frame, and `$disconnect` is lost.
  other.process().kill('SIGKILL');
  const start = Date.now();
  await line(alice, 'carol left', PERIOD + SLACK);
  const seen = Date.now() - start;
  check(`a stale connection is announced after ${seen} ms, within the period of ${PERIOD} ms`, seen <= PERIOD);
  await sleep(1500);
  check('a person with another open tab stays', (await who(alice)) === 'alice, bob' && !(await lines(alice)).includes('bob left'));
  await say(bob, 'carol has left');
  await line(alice, 'bob: carol has left');

  const times = await alice.$$eval('#lines li', items => items.map(item => item.querySelector('time').dateTime));
  check('each line shows its time', times.every(time => Math.abs(Date.now() - Date.parse(time)) < 60000), times);
  const sides = await alice.$$eval('.message', items => items.map(item =>
    [item.matches('.own'), item.getBoundingClientRect().left - item.parentElement.getBoundingClientRect().left > 100]));
  check('own messages are apart', sides.some(([own]) => own) && sides.every(([own, right]) => own === right), sides);
  return [alice, bob];
}

/** The connection is cut while messages are on their way. */
async function reconnecting(alice, bob) {
  let release = await hold(alice);
  await alice.bringToFront();
  await cut(alice);
  await status(alice, 'Connecting');
  await say(alice, 'typed while disconnected');
  await say(alice, 'and once more');
  const waiting = await alice.$$eval('.sending .state', items => items.map(item => item.textContent));
  check('messages wait for the connection', waiting.join() === 'sending…,sending…' && (await count(bob, 'alice: and once more')) === 0);
  await accessible(alice, 'the chat while messages wait');
  const asked = new Promise(done => {
    alice.dialogs = dialog => { done(dialog.type()); return dialog.dismiss(); };
  });
  await alice.close({runBeforeUnload: true});
  check('closing the page asks first while messages wait', (await asked) === 'beforeunload');
  await alice.type('#text', 'a draft');
  alice.dialogs = dialog => dialog.accept();
  await alice.reload();
  alice.dialogs = undefined;
  await alice.waitForSelector('#inside:not([hidden])');
  check('the draft survives a reload', (await alice.$eval('#text', input => input.value)) === 'a draft');
  check('messages that wait survive a reload', (await alice.$$('.sending')).length === 2);
  await release();
  await status(alice, 'Connected');
  await until(alice, () => document.querySelectorAll('.sending').length === 0);
  await line(bob, 'alice: and once more');
  await alice.keyboard.press('Enter');
  await line(bob, 'alice: a draft');
  const once = async (page, by, texts) => (await lines(page)).filter(text => texts.some(end => text === `${by}: ${end}`)).join();
  const texts = ['typed while disconnected', 'and once more', 'a draft'];
  for (const [page, by] of [[alice, 'You'], [bob, 'alice']]) {
    const found = await once(page, by, texts);
    check(`${by === 'You' ? 'the sender' : 'the other'} sees them once, in order`, found === texts.map(text => `${by}: ${text}`).join(), found);
  }

  // The message arrives, but neither the reply nor the message reaches the sender.
  await alice.evaluate(() => { window.chat.socket.onmessage = null; });
  await say(alice, 'the reply to this is lost');
  await line(bob, 'alice: the reply to this is lost');
  check('a message without a reply waits', (await alice.$$('.sending')).length === 1);
  await cut(alice);
  await until(alice, () => document.querySelectorAll('.sending').length === 0);
  await say(alice, 'after it');
  await line(bob, 'alice: after it');
  check('a message that was sent twice is shown once', (await count(bob, 'alice: the reply to this is lost')) === 1
    && (await count(alice, 'You: the reply to this is lost')) === 1);
}

/** The delays of the attempts to reconnect; all other timers have the timeout of 10 s. */
async function backoff(alice, bob) {
  // The delays start over with the page, or after 30 s.
  await alice.reload();
  await status(alice, 'Connected');
  await alice.evaluate(() => {
    const {setTimeout} = window, {random} = Math;
    window.delays = [];
    window.hasty = true;
    window.setTimeout = (run, delay) => {
      if (delay === 10000) return setTimeout(run, delay);
      window.delays.push(delay);
      return window.hasty ? setTimeout(run, 0) : 0;
    };
    Math.random = () => 0.5;
    window.restore = () => { window.setTimeout = setTimeout; Math.random = random; };
  });
  alice.tolerated = /Failed to load resource: net::ERR_FAILED/;
  let sessions = 0;
  const end = await intercept(alice, request => { sessions += 1; return sessions < 8 ? request.abort() : request.continue(); });
  await cut(alice);
  await until(alice, () => window.delays.length === 8 && window.chat.joined);
  const delays = await alice.evaluate(() => window.delays);
  check('the delays grow up to 30 s, with full jitter', delays.join() === '500,1000,2000,4000,8000,15000,15000,15000', delays);
  check('each attempt gets its own session', sessions === 8, sessions);
  await end();
  alice.tolerated = undefined;

  // From now on, the delay never ends.
  await alice.evaluate(() => { window.hasty = false; });
  await cut(alice);
  await status(alice, 'Disconnected');
  await alice.setOfflineMode(true);
  await say(alice, 'typed offline');
  await alice.setOfflineMode(false);
  await line(bob, 'alice: typed offline');
  check('the page reconnects at once when the network is back', await alice.evaluate(() => window.chat.joined));
  await alice.evaluate(() => window.restore());
  check('and shows the people in the room', (await who(alice)) === 'alice, bob', await who(alice));
}

async function refusal(alice, bob) {
  await alice.bringToFront();
  const long = 'too long '.repeat(112).slice(0, 1001).padEnd(1001, '!');
  await alice.$eval('#text', (input, text) => {
    input.removeAttribute('maxlength');
    input.value = text;
    input.dispatchEvent(new Event('input'));
  }, long);
  await alice.focus('#text');
  await alice.keyboard.press('Enter');
  const refused = () => until(alice, () => document.querySelector('.refused [role=alert]')?.textContent === 'A message has at most 1000 characters.');
  await refused();
  check('a refused message shows the error and keeps its text', (await count(alice, `You: ${long}`)) === 1);
  await accessible(alice, 'the chat with a refused message');
  const stops = await tabStops(alice);
  check('the keyboard reaches the chat', stops.join() === 'Leave,log,Retry,Edit,text,Send', stops);
  await fits(alice, 'the chat', 390, 844, `${screenshots}-refused-390.png`);
  await fits(alice, 'the chat', 1280, 640, `${screenshots}-refused-1280.png`);
  await alice.focus('.retry');
  await alice.keyboard.press('Enter');
  await refused();
  await alice.focus('.edit');
  await alice.keyboard.press('Enter');
  check('a refused message can be edited', (await alice.$eval('#text', input => input.value === document.activeElement.value && input.value)) === long
    && (await count(alice, `You: ${long}`)) === 0);
  await alice.$eval('#text', input => { input.value = ''; });
  await say(alice, 'shorter');
  await line(bob, 'alice: shorter');
  check('a refused message does not reach the others', (await count(bob, `alice: ${long}`)) === 0);
}

/** A conversation for the documentation. */
async function pictures(browser) {
  const alice = await enter(browser, url, 'Alice', 'lunch');
  const bob = await enter(browser, url, 'Bob', 'lunch');
  await line(alice, 'Bob joined');
  for (const [from, to, name, text] of [
    [bob, alice, 'Bob', 'Hi Alice! Are you coming to lunch?'],
    [alice, bob, 'Alice', 'Yes, in ten minutes. I am still looking at the new deployment.'],
    [bob, alice, 'Bob', 'How does it look?'],
    [alice, bob, 'Alice', 'Good so far: every client has reconnected, and there are no errors.'],
    [bob, alice, 'Bob', 'Great. See you at the door.'],
  ]) {
    await say(from, text);
    await line(to, `${name}: ${text}`);
  }
  await alice.bringToFront();
  await accessible(alice, 'the chat');
  await fits(alice, 'a conversation', 390, 844, `${screenshots}-390.png`);
  await fits(alice, 'a conversation', 1280, 640, `${screenshots}-1280.png`);
  await alice.emulateMediaFeatures([{name: 'prefers-color-scheme', value: 'dark'}]);
  await fits(alice, 'a conversation in the dark scheme', 1280, 640, `${screenshots}-dark-1280.png`);
  await alice.click('a[href="?leave"]');
  await alice.waitForSelector('#outside:not([hidden])');
  check('a person who leaves gets the login form with the name filled in', (await alice.$eval('#name', input => input.value)) === 'Alice');
  await alice.close();
  await bob.close();
}

(async () => {
  const [browser, other] = [await launch(executablePath), await launch(executablePath)];
  try {
    await login(browser);
    const [alice, bob] = await conversation(browser, other);
    await reconnecting(alice, bob);
    await backoff(alice, bob);
    await refusal(alice, bob);
    await pictures(browser);
    await bob.close();
    await line(alice, 'bob left', PERIOD + SLACK);
    check('a person who closes the last tab leaves', (await who(alice)) === 'alice');
    console.log(`${passed()} passed, 0 failed`);
  } finally {
    await browser.close();
    other.process().kill('SIGKILL');
  }
})().catch(error => { console.error(error.stack); process.exit(1); });
