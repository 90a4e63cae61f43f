/** What can be sent: text, or binary data. */
export type Sendable = string | ArrayBuffer | ArrayBufferView<ArrayBuffer> | Blob;

/**
 * - `connecting`: an attempt is under way.
 * - `open`: messages go straight to the server.
 * - `waiting`: the connection is away, and will be tried again.
 * - `closed`: by `close()`, or by a code that forbids another attempt. It stays so.
 */
export type HubbubState = "connecting" | "open" | "waiting" | "closed";

/** All times are in seconds, all sizes in bytes; a number below 0 is a `RangeError`, as is an option that is not here. */
export interface Options {
  /** The subprotocols that are offered, as `new WebSocket` takes them. */
  protocols?: string | string[];

  /** An attempt that has not opened after so long is given up. Default: 10. */
  connectTimeout?: number;
  /** The longest wait before the first new attempt; doubled for each further one. Default: 0.5. */
  backoffBase?: number;
  /** The longest wait of all. Default: 30. */
  backoffCap?: number;
  /** A connection has to live so long for the next wait to be a first one again. Default: 5. */
  stableAfter?: number;

  /** How many bytes are kept while the connection is away. Default: 1 MiB. */
  queueBytes?: number;
  /** How many messages are kept while the connection is away. Default: 1000. */
  queueMessages?: number;
  /** A longer message is not sent. Default: 1 MiB, as the server's `max_message_size`, which would close the connection. */
  maxMessageSize?: number;

  /** After so long without a message the connection is suspected of being dead. Default: 0, never. */
  heartbeat?: number;
  /**
   * Sent on suspicion, and when the network returns or the tab becomes visible, for the application on the server to
   * answer with any message; until then, what is sent is kept. Default: nothing is sent.
   */
  heartbeatMessage?: Sendable;
  /** A connection that says nothing for so long after suspicion is replaced. Default: 10. */
  heartbeatTimeout?: number;
}

export interface HubbubEventMap extends WebSocketEventMap {
  /** The connection is away; the `attempt`th try to bring it back follows in `delay` seconds, or when the network returns. */
  reconnecting: CustomEvent<{ attempt: number; delay: number }>;
  /** `detail` is the new state. */
  state: CustomEvent<HubbubState>;
}

/**
 * A WebSocket that reconnects. It has everything that the browser's WebSocket has, with these differences:
 *
 * - `open` comes for each connection, `error` for each attempt that failed, `close` once, at the very end.
 * - `readyState` is `CONNECTING` also while waiting; `protocol` and `extensions` are empty without a connection.
 * - `send` never throws for want of a connection, and says what it did.
 */
export interface HubbubSocket extends WebSocket {
  readonly state: HubbubState;

  /**
   * Send one message, or keep it until there is a connection. Buffers are copied.
   *
   * What is kept is sent in the order of the calls, after what the listeners of `open` send. What was given to a
   * connection that then broke is not sent again, as nobody here can know whether it arrived.
   *
   * @returns Whether it was sent or kept: `false` when closed, when too much is kept already, and for a message of
   *   more than `maxMessageSize`.
   */
  send(message: Sendable): boolean;

  /**
   * Close for good, and forget what was kept.
   *
   * The `close` event has the server's answer; without an open connection it has code 1006, as the browser's.
   *
   * @param code 1000 or 3000 to 4999; otherwise an `InvalidAccessError`.
   * @param reason At most 123 bytes of UTF-8; otherwise a `SyntaxError`.
   */
  close(code?: number, reason?: string): void;

  addEventListener<T extends keyof HubbubEventMap>(
    type: T,
    listener: (this: HubbubSocket, event: HubbubEventMap[T]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<T extends keyof HubbubEventMap>(
    type: T,
    listener: (this: HubbubSocket, event: HubbubEventMap[T]) => unknown,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

/**
 * Connect to a Hubbub server, and stay connected.
 *
 * @param url Absolute (`ws:`, `wss:`, `http:`, `https:`), or relative to the page, whose scheme decides between `ws:`
 *   and `wss:`.
 * @throws What `new WebSocket` throws for the same address and protocols, and a `RangeError` for a wrong option.
 */
export function connect(url: string | URL, options?: Options): HubbubSocket;
