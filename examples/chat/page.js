import {Connection, RefusedError} from './connection.js';

/** How often a message is sent without a reply before the user decides. */
const MAX_ATTEMPTS = 5;

const at = id => document.getElementById(id);
const copy = template => at(template).content.firstElementChild.cloneNode(true);
const sentence = text => `${text[0].toUpperCase()}${text.slice(1)}.`;
const clock = new Intl.DateTimeFormat(undefined, {timeStyle: 'short'});

/**
 * The state that survives a reload: the room, the draft, and the messages that the room does not have yet.
 *
 * A message of the outbox is `{key, text, time, attempts, error}`. It has an error if it was refused, and is sent otherwise.
 * The key is the same whenever it is sent, so that everybody shows it once.
 */
const saved = {name: '', room: 'lobby', inside: false, draft: '', outbox: [], ...load()};

let connection;
/** The people in the room, whether there are more, and the version of the last event about each. */
let present = new Set(), more = false;
const versions = new Map();
/** The sender and key of each message in the log, and the elements of the messages in the outbox. */
const shown = new Set(), items = new Map();

function load() {
  try {
    const state = JSON.parse(sessionStorage.getItem('chat'));
    if (location.search !== '?leave') return state;
    history.replaceState(null, '', location.pathname);
    return {...state, inside: false, outbox: []};
  } catch {
    return {}; // The browser does not allow storage.
  }
}

function save() {
  try {
    sessionStorage.setItem('chat', JSON.stringify(saved));
  } catch {
    // The browser does not allow storage. The page works without, until it is reloaded.
  }
}

// The log.

/** Whether the log is scrolled to its end. Then it stays there, unless the user scrolls up to read. */
let atEnd = true;
const log = at('log');
log.onscroll = () => { atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40; };
const keepAtEnd = new ResizeObserver(() => { if (atEnd) log.scrollTop = log.scrollHeight; });
keepAtEnd.observe(log);
keepAtEnd.observe(at('lines'));

function append(item, date) {
  const time = item.querySelector('time');
  time.dateTime = date.toISOString();
  time.textContent = clock.format(date);
  at('lines').append(item);
}

function addNote(text) {
  const item = copy('note');
  item.querySelector('.words').textContent = text;
  append(item, new Date());
}

function addMessage(who, text, date) {
  const item = copy('message');
  const own = who === saved.name;
  item.classList.toggle('own', own);
  atEnd ||= own;
  item.querySelector('.by').textContent = own ? 'You' : who;
  item.querySelector('.words').textContent = text;
  append(item, date);
  return item;
}

function showPeople() {
  const names = [...present].sort();
  at('who').replaceChildren(...[...names, ...(more ? ['and more'] : [])].map(name => {
    const item = document.createElement('li');
    item.textContent = name;
    return item;
  }));
}

// The outbox.

function addToOutbox(text) {
  const message = {key: crypto.randomUUID(), text, time: Date.now(), attempts: 0};
  saved.outbox.push(message);
  save();
  showOutgoing(message);
  flush();
}

function removeFromOutbox(message) {
  saved.outbox = saved.outbox.filter(({key}) => key !== message.key);
  save();
}

/** Shows a message of the outbox, or its new state. */
function showOutgoing(message) {
  let item = items.get(message.key);
  if (!item) items.set(message.key, item = addMessage(saved.name, message.text, new Date(message.time)));
  const waits = saved.outbox.includes(message);
  item.classList.toggle('sending', waits && !message.error);
  item.classList.toggle('refused', waits && Boolean(message.error));
  item.querySelector('.state').textContent = !waits ? '' : message.error ? 'not sent' : 'sending…';
  if (item.querySelector('.refusal')?.contains(document.activeElement)) at('text').focus();
  item.querySelector('.refusal')?.remove();
  if (waits && message.error) {
    const refusal = copy('refusal');
    refusal.querySelector('.error').textContent = sentence(message.error);
    refusal.querySelector('.retry').onclick = () => retry(message);
    refusal.querySelector('.edit').onclick = () => edit(message);
    item.append(refusal);
  }
}

/** Sends the messages one after the other, because requests at the same time may be handled in any order. */
let flushing = false;
async function flush() {
  if (flushing) return;
  flushing = true;
  for (let message; connection.joined && (message = saved.outbox.find(({error}) => !error));) {
    try {
      const {key, text} = message;
      await connection.request({action: 'say', room: saved.room, text, key});
      sent(message);
    } catch (error) {
      // After a lost connection, the message stays in the outbox and is sent again.
      message.attempts += 1;
      if (error instanceof RefusedError || message.attempts >= MAX_ATTEMPTS) refused(message, error.message);
    }
  }
  flushing = false;
}

/** Records that the room has a message: the reply came, or the message itself. */
function sent(message) {
  if (!saved.outbox.includes(message)) return;
  shown.add(JSON.stringify([saved.name, message.key]));
  at('talk-error').textContent = '';
  removeFromOutbox(message);
  showOutgoing(message);
  items.delete(message.key);
}

function refused(message, error) {
  if (!saved.outbox.includes(message)) return;
  message.error = error;
  save();
  showOutgoing(message);
}

function retry(message) {
  removeFromOutbox(message);
  Object.assign(message, {attempts: 0, error: undefined});
  saved.outbox.push(message);
  save();
  showOutgoing(message);
  flush();
}

/** Moves a refused message back into the input. */
function edit(message) {
  removeFromOutbox(message);
  items.get(message.key).remove();
  items.delete(message.key);
  at('text').value = [message.text, at('text').value].filter(Boolean).join('\n');
  at('text').focus();
  saveDraft();
}

// The events of the connection.

const events = {
  who(event) {
    present = new Set(event.who);
    more = event.more;
    showPeople();
  },
  said({who, text, key}) {
    // A message that was sent twice arrives twice. The sender's own message is in the log already.
    const id = JSON.stringify([who, key]);
    if (key && shown.has(id)) return;
    if (key) shown.add(id);
    const own = who === saved.name && saved.outbox.find(message => message.key === key);
    if (own) sent(own); else addMessage(who, text, new Date());
  },
  presence(presence) {
    for (const {event, who, version} of presence.events) {
      // Events may overtake each other: the one with the highest version is true.
      if (version <= (versions.get(who) ?? 0)) continue;
      versions.set(who, version);
      if (event === 'joined') present.add(who); else present.delete(who);
      addNote(`${who} ${event}`);
    }
    showPeople();
  },
};

let joinedBefore = false;
const listener = {
  status(connected, text) {
    at('status').textContent = text;
    at('status').classList.toggle('connected', connected);
  },
  joined(result) {
    events.who(result);
    if (joinedBefore) addNote('You were disconnected and may have missed messages.');
    joinedBefore = true;
    flush();
  },
  event(frame) { events[frame.event]?.(frame); },
  failed(message) { at('talk-error').textContent = sentence(message); },
};

// The forms.

function connect() {
  // `chat.socket.close()` in the browser's console cuts the connection; the tests do this.
  connection = window.chat = new Connection(saved.name, saved.room, listener);
}

function showRoom() {
  saved.inside = true;
  save();
  connection.watch();
  at('outside').hidden = true;
  at('inside').hidden = false;
  at('where').textContent = saved.room;
  document.title = `${saved.name} in ${saved.room}`;
  at('text').value = saved.draft;
  saved.outbox.forEach(showOutgoing);
  at('text').focus();
}

at('enter').onsubmit = async event => {
  event.preventDefault();
  saved.name = at('name').value.trim();
  saved.room = at('room').value.trim();
  at('enter-error').textContent = '';
  at('enter-button').disabled = true;
  connect();
  try {
    await connection.open();
    showRoom();
  } catch (error) {
    at('enter-error').textContent = sentence(error.message);
  }
  at('enter-button').disabled = false;
};

at('talk').onsubmit = event => {
  event.preventDefault();
  const text = at('text').value.trim();
  if (!text) return;
  addToOutbox(text);
  at('text').value = '';
  saveDraft();
};

function saveDraft() {
  saved.draft = at('text').value;
  save();
}

at('text').oninput = saveDraft;
at('text').onkeydown = event => {
  // An input method uses Enter to finish a word.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at('talk').requestSubmit();
};

addEventListener('beforeunload', event => {
  if (saved.outbox.length > 0) event.preventDefault();
});

save();
at('name').value = saved.name;
at('room').value = saved.room;
if (saved.inside) {
  connect();
  showRoom();
  connection.open().catch(() => connection.reopen());
}
