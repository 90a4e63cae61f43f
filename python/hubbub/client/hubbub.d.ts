/** What can be sent: text, or binary data. */
export type Sendable = string | ArrayBuffer | ArrayBufferView<ArrayBuffer> | Blob;

/**
 * - `connecting`: an attempt is in progress.
 * - `open`: messages go straight to the server.
 * - `waiting`: there is no connection, and another attempt will follow.
 * - `closed`: by `close()`, or by a close code that forbids another attempt. This is final.
 */
export type HubbubState = "connecting" | "open" | "waiting" | "closed";

/** All times are in seconds, all sizes in bytes. A number below 0 or an unknown option throws a `RangeError`. */
export interface Options {
  /** The subprotocols to offer, as in `new WebSocket`. */
  protocols?: string | string[];

  /** Give up an attempt that has not opened after this time. Default: 10. */
  connectTimeout?: number;
  /** The longest wait before the first new attempt; doubled for each further attempt. Default: 0.5. */
  backoffBase?: number;
  /** The upper limit for any wait. Default: 30. */
  backoffCap?: number;
  /** How long a connection must live before the wait goes back to `backoffBase`. Default: 5. */
  stableAfter?: number;

  /** How many bytes to keep while there is no connection. Default: 1 MiB. */
  queueBytes?: number;
  /** How many messages to keep while there is no connection. Default: 1000. */
  queueMessages?: number;
  /** A longer message is not sent. Default: 1 MiB, as for the server's `max_message_size`; keep the two equal. */
  maxMessageSize?: number;

  /** After this time without a message the connection is suspected of being dead. Default: 0, never. */
  heartbeat?: number;
  /**
   * The message to send on a suspected connection, and when the network returns or the tab becomes visible. Your
   * application on the server has to answer it with any message; until then, what you send is kept. Default: none.
   */
  heartbeatMessage?: Sendable;
  /** Replace a suspected connection that stays silent for this long. Default: 10. */
  heartbeatTimeout?: number;
}

export interface HubbubEventMap extends WebSocketEventMap {
  /** The connection was lost. Attempt number `attempt` follows in `delay` seconds, or when the network returns. */
  reconnecting: CustomEvent<{ attempt: number; delay: number }>;
  /** `detail` is the new state. */
  state: CustomEvent<HubbubState>;
}

/**
 * A WebSocket that reconnects. It has everything that the browser's WebSocket has, with these differences:
 *
 * - `open` fires for each connection, `error` for each failed attempt or connection, `close` once, at the very end.
 * - `readyState` is `CONNECTING` while it waits, too; `protocol` and `extensions` are empty without a connection.
 * - `send` does not throw if there is no connection, and returns whether the message was sent or kept.
 */
export interface HubbubSocket extends WebSocket {
  readonly state: HubbubState;

  /**
   * Send one message, or keep it until there is a connection. Buffers are copied.
   *
   * Kept messages are sent in the order of the calls, after those that `open` listeners send. A message that was handed
   * to a connection which then broke is not sent again, because the client cannot know whether it arrived.
   *
   * @returns Whether it was sent or kept: `false` if the socket is closed, if too much is kept already, or if the
   *   message is longer than `maxMessageSize`.
   */
  send(message: Sendable): boolean;

  /**
   * Close permanently, and discard kept messages.
   *
   * The `close` event has the server's answer; without an open connection it has code 1006, as in the browser.
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
