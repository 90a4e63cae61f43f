"""Extensions of ASGI: early hints, and what TLS has agreed on."""

import json
import ssl
from typing import Any

import trustme
from application import Note, nothing
from asgi_application import App
from over_tls import any_certificate, serve_over_tls
from running import ServeApp


async def hinting(scope: Any, receive: Any, send: Any) -> None:
    """Sends early hints twice, and then an answer."""
    assert "http.response.early_hint" in scope["extensions"]
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]})
    await send({"type": "http.response.early_hint", "links": [b"</c.css>; rel=preload"]})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


async def telling_tls(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the extension `tls`."""
    body = json.dumps(scope["extensions"].get("tls")).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def telling(note: Note) -> App:
    """Make that application."""
    return telling_tls


async def test_early_hints_go_before_the_answer(serve_app: ServeApp) -> None:
    running = await serve_app(lambda note: hinting)
    async with running.raw() as client:
        client.ask()
        head = await client.answer(has_body=False)
        assert (head.status, head.headers["link"]) == (103, "</b.js>; rel=preload")
        assert (await client.answer(has_body=False)).headers["link"] == "</c.css>; rel=preload"
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"done")
        # HTTP/1.0 does not know them.
        client.send("GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer()).status == 200


async def test_without_tls_there_is_no_such_extension(serve_app: ServeApp) -> None:
    running = await serve_app(telling)
    async with running.raw() as client:
        client.ask()
        tls = json.loads((await client.answer()).body)
    assert (tls is None) == (running.tls is None)


async def test_the_application_learns_what_tls_has_agreed_on() -> None:
    authority = trustme.CA()
    made = any_certificate().trusted
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    leaf = authority.issue_cert("ada.example")
    leaf.configure_cert(made)
    with authority.cert_pem.tempfile() as authorities:
        settings = {"app": telling, "lifespan": "off", "ssl_ca_certs": authorities}
        async with serve_over_tls(nothing, settings) as running:
            running.tls = made
            async with running.raw() as client:
                client.ask()
                tls = json.loads((await client.answer()).body)
    assert tls["tls_version"] == 0x0303
    # An ECDHE suite of TLS 1.2 (RFC 5289, RFC 7905).
    assert tls["cipher_suite"] in range(0xC02B, 0xC031) or tls["cipher_suite"] in (0xCCA8, 0xCCA9)
    shown = leaf.cert_chain_pems[0].bytes().decode()
    assert ssl.PEM_cert_to_DER_cert(tls["client_cert_chain"][0]) == ssl.PEM_cert_to_DER_cert(shown)
