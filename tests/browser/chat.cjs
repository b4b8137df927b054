// Talks in the chat with Chromium: chat.cjs CHROMIUM URL SCREENSHOT.
const puppeteer = require('puppeteer-core');

const [executablePath, url, screenshot] = process.argv.slice(2);
/** The example's CHAT_SWEEP_PERIOD, and how much longer the test waits before it gives up, in milliseconds. */
const PERIOD = 3000, SLACK = 3000;
let passed = 0;

function check(what, holds) {
  if (!holds) throw new Error(`it does not hold that ${what}`);
  passed += 1;
  console.log(`ok  ${what}`);
}

const launch = () => puppeteer.launch({executablePath, headless: true, args: ['--no-sandbox', '--disable-gpu']});

async function enter(browser, name, room = 'lobby') {
  const page = await browser.newPage();
  page.on('pageerror', error => { throw error; });
  await page.goto(url);
  await page.type('#name', name);
  await page.$eval('#room', (input, room) => { input.value = room; }, room);
  await page.keyboard.press('Enter');
  await page.waitForFunction(name => document.getElementById('who').textContent.includes(name), {timeout: 10000, polling: 50}, name);
  return page;
}

async function say(page, text) {
  await page.bringToFront();
  await page.type('#text', text);
  await page.keyboard.press('Enter');
}

/** Waits until a line of the page's log reads so. */
const line = (page, text, timeout = 10000) =>
  page.waitForFunction(
    text => [...document.querySelectorAll('#log li')].some(item => item.textContent === text), {timeout, polling: 50}, text);
const lines = page => page.$$eval('#log li', items => items.map(item => item.textContent));
const who = page => page.$eval('#who', who => who.textContent);

(async () => {
  const [browser, other] = [await launch(), await launch()];
  try {
    const alice = await enter(browser, 'alice');
    const bob = await enter(browser, 'bob');
    await line(alice, 'bob came in');
    check('two tabs see each other', (await who(alice)) === 'alice, bob' && (await who(bob)) === 'alice, bob');
    await say(alice, 'hello <b>bob</b>');
    await line(bob, 'alice: hello <b>bob</b>');
    await line(alice, 'alice: hello <b>bob</b>');
    await say(bob, 'hello alice, 你好 🦀');
    await line(alice, 'bob: hello alice, 你好 🦀');
    check('two tabs talk', true);
    const elsewhere = await enter(browser, 'dave', 'kitchen');
    const again = await enter(other, 'bob');
    const carol = await enter(other, 'carol');
    await line(alice, 'carol came in');
    check('who has two tabs is there once', (await who(alice)) === 'alice, bob, carol');
    check('and came once', (await lines(alice)).filter(text => text === 'bob came in').length === 1);
    check('another room hears nothing', (await lines(elsewhere)).length === 0);
    await say(carol, 'x'.repeat(1000));
    await line(alice, `carol: ${'x'.repeat(1000)}`);
    await say(carol, 'I will be gone');
    await line(alice, 'carol: I will be gone');

    // The browser dies without a close frame, and `$disconnect` is lost.
    other.process().kill('SIGKILL');
    const start = Date.now();
    await line(alice, 'carol left', PERIOD + SLACK);
    const seen = Date.now() - start;
    check(`a stale connection is announced after ${seen} ms, within the period of ${PERIOD} ms`, seen <= PERIOD);
    await new Promise(done => setTimeout(done, 1500));
    check('whose other tab is open is still there', (await who(alice)) === 'alice, bob' && !(await lines(alice)).includes('bob left'));
    await say(bob, 'carol is gone');
    await line(alice, 'bob: carol is gone');
    await alice.bringToFront();
    await alice.screenshot({path: screenshot});
    console.log(`a picture of it is ${screenshot}`);
    await bob.close();
    await line(alice, 'bob left', PERIOD + SLACK);
    check('who closes the last tab leaves', (await who(alice)) === 'alice');
    console.log(`${passed} passed, 0 failed`);
  } finally {
    await browser.close();
    other.process().kill('SIGKILL');
  }
})().catch(error => { console.error(error.message); process.exit(1); });
