/** Timeout for a session, for opening a connection, and for a reply, in milliseconds. */
const TIMEOUT = 10_000;
/** The maximum delay before the first attempt to reconnect, and before any attempt, in milliseconds. */
const FIRST_DELAY = 1_000, MAX_DELAY = 30_000;
/** The time after which the delays of a new connection start over, in milliseconds. */
const STABLE_AFTER = 30_000;
/** API Gateway closes a connection that is idle for ten minutes. */
const KEEP_ALIVE_PERIOD = 4 * 60_000;

/** The chat replied with an error. */
export class RefusedError extends Error {}

/** There is no connection, or there was no reply. The request may have been handled. */
export class DisconnectedError extends Error {}

/**
 * A connection to a room that reconnects by itself.
 *
 * The listener has these functions:
 * - `status(connected, text)`: the status changed.
 * - `joined(result)`: the room is joined, for the first time or again; the result is that of `join`.
 * - `event(frame)`: the room got an event.
 * - `failed(message)`: an error came that belongs to no request.
 */
export class Connection {
  /** The open WebSocket, or `null`. */
  socket = null;
  /** Whether the room is joined. */
  joined = false;

  #name;
  #room;
  #listener;
  /** The requests without a reply, by `id`. */
  #requests = new Map();
  /** The number of attempts since the last stable connection, and when the room was joined. */
  #attempts = 0;
  #joinedAt = 0;
  /** Ends the delay before the next attempt. */
  #wake = () => {};

  constructor(name, room, listener) {
    this.#name = name;
    this.#room = room;
    this.#listener = listener;
  }

  /** Connects and joins the room, or throws an error. From then on, the connection reconnects by itself. */
  async open() {
    this.#listener.status(false, 'Connecting…');
    // The token in the URL expires, so each attempt gets a session of its own.
    const socket = new WebSocket(await this.#session());
    this.socket = socket;
    socket.onclose = () => this.#lost('the connection was closed');
    socket.onmessage = ({data}) => this.#receive(JSON.parse(data));
    let result;
    try {
      await opened(socket);
      result = await this.request({action: 'join', room: this.#room});
    } catch (error) {
      this.#lost('the connection was closed');
      throw error;
    }
    this.joined = true;
    this.#joinedAt = Date.now();
    this.#listener.status(true, 'Connected');
    this.#listener.joined(result);
  }

  /** Connects after a random delay, and tries again until it succeeds: exponential backoff with full jitter. */
  async reopen() {
    if (Date.now() - this.#joinedAt > STABLE_AFTER) this.#attempts = 0;
    while (!this.joined) {
      const delay = Math.random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.#attempts);
      this.#attempts += 1;
      this.#listener.status(false, `Disconnected, reconnecting in ${Math.ceil(delay / 1000)} s`);
      await new Promise(done => {
        this.#wake = done;
        setTimeout(done, delay);
      });
      await this.open().catch(() => {});
    }
  }

  /** Reconnects at once when the network is back, and keeps the connection from being idle. */
  watch() {
    addEventListener('online', () => {
      this.#attempts = 0;
      this.#wake();
      this.#keepAlive();
    });
    setInterval(() => this.#keepAlive(), KEEP_ALIVE_PERIOD);
  }

  /** Sends a request, and returns the result in the reply with its `id`. */
  request(message) {
    return new Promise((resolve, reject) => {
      if (this.socket?.readyState !== WebSocket.OPEN) throw new DisconnectedError('there is no connection');
      const id = crypto.randomUUID();
      // Without a reply, the connection may have ended unnoticed.
      const timer = setTimeout(() => this.#lost('there was no reply in time'), TIMEOUT);
      this.#requests.set(id, {resolve, reject, timer});
      this.socket.send(JSON.stringify({...message, id}));
    });
  }

  /** Gets the URL to connect to. */
  async #session() {
    let response;
    try {
      const body = JSON.stringify({name: this.#name});
      response = await fetch('/session', {method: 'POST', body, signal: AbortSignal.timeout(TIMEOUT)});
    } catch {
      throw new DisconnectedError('the server cannot be reached');
    }
    if (!response.ok) throw new RefusedError(await response.text());
    return (await response.json()).url;
  }

  /** Handles a frame: the final frame of a request, an event, or an error of the gateway. */
  #receive(frame) {
    const request = this.#requests.get(frame.id);
    if (request && ('result' in frame || 'error' in frame)) {
      this.#requests.delete(frame.id);
      clearTimeout(request.timer);
      if ('result' in frame) request.resolve(frame.result);
      else request.reject(new RefusedError(frame.error.message));
    } else if (frame.event) {
      this.#listener.event(frame);
    } else if (frame.id === undefined) {
      this.#listener.failed(frame.error?.message ?? frame.message);
    }
  }

  /** Checks that the connection works; a request without a reply closes it. */
  #keepAlive() {
    if (this.joined) this.request({action: 'who', room: this.#room}).then(this.#listener.event, () => {});
  }

  /** Gives up the connection: its requests fail, and if the room was joined, the connection is opened again. */
  #lost(reason) {
    const {socket} = this;
    if (!socket) return;
    this.socket = null;
    socket.onclose = socket.onmessage = null;
    socket.close();
    for (const {reject, timer} of this.#requests.values()) {
      clearTimeout(timer);
      reject(new DisconnectedError(reason));
    }
    this.#requests.clear();
    if (this.joined) {
      this.joined = false;
      this.reopen();
    }
  }
}

/** Waits until a WebSocket is open. */
function opened(socket) {
  return new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve);
    socket.addEventListener('close', () => reject(new DisconnectedError('the gateway cannot be reached')));
    setTimeout(() => reject(new DisconnectedError('connecting takes too long')), TIMEOUT);
  });
}
