// Connects to the given address, and prints the socket's states and the messages that it receives, line by line.
import { connect } from "../../../python/hubbub/client/hubbub.js";

const socket = connect(process.argv[2], { backoffBase: 0.1, backoffCap: 0.1, connectTimeout: 3600 });
for (const type of ["error", "close"]) socket.addEventListener(type, () => console.log(type));
socket.addEventListener("state", ({ detail }) => console.log(detail));
socket.addEventListener("message", ({ data }) => {
  console.log(data);
  socket.close();
});
