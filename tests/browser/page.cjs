// Functions that open the chat's page in Chromium, use it, and read it.
const axe = require('axe-core');
const puppeteer = require('puppeteer-core');

/** The problems that the pages reported: errors and warnings in the console, uncaught errors, and unexpected dialogs. */
const problems = [];
let passed = 0;

function check(what, holds, found = '') {
  if (problems.length > 0) throw new Error(`a page reported:\n${problems.join('\n')}`);
  if (!holds) throw new Error(`failed: ${what} ${found && JSON.stringify(found, null, 1)}`);
  passed += 1;
  console.log(`ok  ${what}`);
}

const launch = executablePath => puppeteer.launch({executablePath, headless: true, args: ['--no-sandbox', '--disable-gpu']});

/** Opens the login form. `page.tolerated` matches the errors that a test causes, and `page.dialogs` handles dialogs. */
async function open(browser, url) {
  const page = await browser.newPage();
  await page.setViewport({width: 1280, height: 640});
  await page.emulateMediaFeatures([{name: 'prefers-color-scheme', value: 'light'}]);
  page.on('pageerror', error => problems.push(`uncaught: ${error.message}`));
  page.on('console', message => {
    if (!['error', 'warn'].includes(message.type()) || page.tolerated?.test(message.text())) return;
    problems.push(`${message.type()}: ${message.text()}`);
  });
  page.on('dialog', dialog => {
    if (page.dialogs) return page.dialogs(dialog);
    problems.push(`a dialog: ${dialog.type()} ${dialog.message()}`);
    dialog.dismiss();
  });
  await page.goto(url);
  return page;
}

/** Enters a room with the keyboard alone. */
async function enter(browser, url, name, room = 'lobby') {
  const page = await open(browser, url);
  await until(page, () => document.activeElement.id === 'name');
  await page.keyboard.type(name);
  await page.$eval('#room', (input, room) => { input.value = room; }, room);
  await page.keyboard.press('Enter');
  await until(page, name => document.getElementById('who').textContent.includes(name), name);
  return page;
}

async function say(page, text) {
  await page.bringToFront();
  await page.type('#text', text);
  await page.keyboard.press('Enter');
}

const until = (page, holds, argument, timeout = 10000) => page.waitForFunction(holds, {timeout, polling: 50}, argument);

/** The lines of the log, such as `alice: hello` and `bob joined`. */
const lines = page => page.$$eval('#lines li', items => items.map(item =>
  [item.querySelector('.by')?.textContent, item.querySelector('.words').textContent].filter(Boolean).join(': ')));
const count = async (page, text) => (await lines(page)).filter(line => line === text).length;
const who = page => page.$$eval('#who li', items => items.map(item => item.textContent).join(', '));

/** Waits until a line of the page's log reads so. */
async function line(page, text, timeout = 10000) {
  for (const end = Date.now() + timeout; !(await lines(page)).includes(text);) {
    if (Date.now() > end) throw new Error(`no line reads ${text.slice(0, 80)}, but ${JSON.stringify(await lines(page))}`);
    await new Promise(done => setTimeout(done, 50));
  }
}

const status = (page, text) => until(page, text => document.getElementById('status').textContent.startsWith(text), text);

/** Cuts the connection as a network does: neither the page nor the user asked for it. */
const cut = page => page.evaluate(() => window.chat.socket.close());

/** Lets `handle` answer requests for a session. Returns a function that ends this. */
async function intercept(page, handle) {
  const each = request => new URL(request.url()).pathname === '/session' ? handle(request) : request.continue();
  page.on('request', each);
  await page.setRequestInterception(true);
  return async () => {
    await page.setRequestInterception(false);
    page.off('request', each);
  };
}

/** Keeps the page from getting a session. Returns a function that lets it. */
async function hold(page) {
  const held = [];
  let released = false;
  // A request of a page that was reloaded has been canceled.
  const pass = request => request.continue().catch(() => {});
  const end = await intercept(page, request => released ? pass(request) : held.push(request));
  return async () => {
    released = true;
    await Promise.all(held.map(pass));
    await end();
  };
}

/** Checks accessibility in both color schemes. */
async function accessible(page, what) {
  await page.bringToFront();
  for (const scheme of ['dark', 'light']) {
    await page.emulateMediaFeatures([{name: 'prefers-color-scheme', value: scheme}]);
    await page.evaluate(axe.source);
    const {violations, incomplete, passes} = await page.evaluate(() => window.axe.run());
    // axe cannot measure the contrast of an element that is scrolled out of view.
    const unknown = incomplete.filter(({nodes}) => nodes.some(node => !/obscured|overlapped/.test(node.failureSummary)));
    const found = [...violations, ...unknown].map(({id, nodes}) => ({id, nodes: nodes.map(node => [node.html, node.failureSummary])}));
    check(`axe finds nothing in ${what}, ${scheme}; ${passes.length} rules pass`, found.length === 0, found);
  }
}

/** Checks that nothing is cut off at this width, and takes a picture. */
async function fits(page, what, width, height, path) {
  await page.bringToFront();
  await page.setViewport({width, height});
  const outside = await page.evaluate(() => {
    const root = document.documentElement;
    const cut = [...document.querySelectorAll('main *')].filter(element => {
      if (!element.checkVisibility() || element.matches('.for-screen-readers')) return false;
      const {left, right} = element.getBoundingClientRect();
      return left < 0 || right > root.clientWidth || (element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0);
    });
    return [...cut.map(element => element.outerHTML.slice(0, 100)), ...(root.scrollHeight > root.clientHeight ? ['the page scrolls'] : [])];
  });
  await page.screenshot({path});
  check(`nothing is cut off in ${what} at ${width} px (${path})`, outside.length === 0, outside);
}

/** Presses Tab until the focus has been through the page. Returns the elements that get it; each must show it. */
async function tabStops(page) {
  await page.bringToFront();
  const stops = [];
  for (let press = 0, ends = 0; ends < 2 && press < 40; press += 1) {
    await page.keyboard.press('Tab');
    const name = await page.evaluate(() => {
      const element = document.activeElement;
      const {outlineStyle, outlineWidth} = getComputedStyle(element);
      const shown = outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2;
      return element === document.body ? null : (element.id || element.textContent) + (shown ? '' : ' without a visible focus');
    });
    if (name === null) ends += 1;
    else if (ends === 1) stops.push(name);
  }
  return stops;
}

module.exports = {accessible, check, count, cut, enter, fits, hold, intercept, launch, line, lines, open, passed: () => passed, say, status, tabStops, until, who};
