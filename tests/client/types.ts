/** Never run: what an application may write, and may not, as far as `tsc` can see it. */

import { connect, type HubbubSocket } from "../../python/hubbub/client/hubbub.js";

const socket: HubbubSocket = connect("/chat", { protocols: ["chat.v1"], heartbeat: 30, heartbeatMessage: "ping" });

// It stands wherever a browser's WebSocket is expected.
const replaced: WebSocket = connect(new URL("wss://example.com/chat"));
replaced.onmessage = (event) => console.log(event.data);
replaced.addEventListener("close", (event) => console.log(event.code, event.wasClean));

const sent: boolean = socket.send(new Uint8Array([1, 2, 3]));
const state: "connecting" | "open" | "waiting" | "closed" = socket.state;
socket.addEventListener("reconnecting", ({ detail }) => console.log(detail.attempt.toFixed(), detail.delay.toFixed(1)));
socket.addEventListener("state", ({ detail }) => console.log(detail === "waiting", sent, state));
socket.removeEventListener("message", console.log);

// @ts-expect-error: only the server's side and the back-off decide about the state.
socket.state = "closed";
// @ts-expect-error: there is no such option.
connect("/chat", { backofBase: 1 });
// @ts-expect-error: an object has to be turned into text first.
socket.send({ text: "hello" });
