"""The settings: three sources, one table, and errors that say what to do."""

import os
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub._core import broker_address
from hubbub.errors import HubbubError, SettingsError
from hubbub.settings import Setting, Settings, more_follow

NAMES = [each.name for each in fields(Settings)]
LISTS = ("origins", "allowed_hosts", "subprotocols", "trusted_proxies")


def load(
    *, environ: dict[str, str] | None = None, options: dict[str, str] | None = None, **keywords: object
) -> Settings:
    """`Settings.load` shut off from the environment in which the tests run."""
    return Settings.load(keywords, environ=environ or {}, options=options or {})


def refusal(*, environ: dict[str, str] | None = None, options: dict[str, str] | None = None, **keywords: object) -> str:
    """The message with which `load` refuses."""
    with pytest.raises(SettingsError) as caught:
        load(environ=environ, options=options, **keywords)
    return str(caught.value)


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert load() == Settings(
        host="127.0.0.1",
        port=9501,
        workers=None,
        max_connections=100_000,
        max_message_size=1_048_576,
        send_queue_size=4_194_304,
        slow_consumer="close",
        threads=8,
        max_memory="auto",
        message_timeout=60,
        receive_queue=64,
        ping_interval=20,
        ping_timeout=20,
        handshake_timeout=10,
        close_timeout=5,
        keep_alive_timeout=15,
        shutdown_timeout=10,
        origins="same",
        allowed_hosts=None,
        subprotocols=(),
        compression=False,
        compression_threshold=1024,
        max_header_size=16_384,
        max_body_size=1_048_576,
        limit_concurrency=None,
        broker=None,
        broker_prefix="hubbub",
        broker_queue_size=67_108_864,
        broker_required=True,
        max_requests=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        ssl_keyfile_password=None,
        ssl_ca_certs=None,
        trusted_proxies=("127.0.0.1", "::1"),
        health_path="/health",
        root_path="",
        lifespan="auto",
        metrics_port=None,
        control="auto",
        log_level="info",
        backlog=4096,
        access_log=False,
    )


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        load().port = 1  # type: ignore[misc]


def test_settings_errors_are_value_errors() -> None:
    assert issubclass(SettingsError, ValueError)
    assert issubclass(SettingsError, HubbubError)


def test_a_copy_is_checked_too() -> None:
    assert replace(load(), port=8080).port == 8080
    with pytest.raises(SettingsError, match="port"):
        replace(load(), port=-1)


def test_the_environment_of_the_process_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_BACKLOG", "17")
    assert Settings.load({}).backlog == 17


# Which source wins.


def test_a_variable_beats_a_keyword() -> None:
    assert load(threads=2, environ={"HUBBUB_THREADS": "3"}).threads == 3


def test_an_option_beats_a_variable_and_a_keyword() -> None:
    assert load(threads=2, environ={"HUBBUB_THREADS": "3"}, options={"threads": "4"}).threads == 4


def test_a_beaten_value_is_not_looked_at() -> None:
    assert load(threads="many", environ={"HUBBUB_THREADS": "3"}).threads == 3
    assert load(environ={"HUBBUB_THREADS": "many"}, options={"threads": "4"}).threads == 4


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(port=8080, environ={"HUBBUB_PORT": ""}).port == 8080


def test_variables_that_are_no_setting_are_ignored() -> None:
    assert load(environ={"HUBBUB_SERVICE_HOST": "10.0.0.1", "HUBBUB_PORT_9501_TCP": "x"}) == load()


def test_the_port_that_kubernetes_injects_is_ignored() -> None:
    assert load(port=8080, environ={"HUBBUB_PORT": "tcp://10.96.0.7:9501"}).port == 8080
    environ = {"HUBBUB_METRICS_PORT": "tcp://10.96.0.7:9102"}
    assert load(metrics_port=9102, environ=environ).metrics_port == 9102


# Parsing text.


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "0", 0),
        ("max_message_size", "1_000", 1000),
        ("close_timeout", "2", 2.0),
        ("close_timeout", "0.25", 0.25),
        ("workers", "none", None),
        ("ping_interval", "NONE", None),
        ("message_timeout", "none", None),
        ("max_memory", "Auto", "auto"),
        ("max_memory", "16_000_000", 16_000_000),
        ("max_body_size", "none", None),
        ("limit_concurrency", "none", None),
        ("max_requests", "1000", 1000),
        ("root_path", "", ""),
        ("root_path", "/api/v1", "/api/v1"),
        ("lifespan", "ON", "on"),
        ("compression", "true", True),
        ("compression", "FALSE", False),
        ("access_log", "1", True),
        ("access_log", "0", False),
        ("slow_consumer", "Drop", "drop"),
        ("log_level", "WARNING", "warning"),
        ("subprotocols", "chat, superchat", ("chat", "superchat")),
        ("subprotocols", "none", ()),
        ("trusted_proxies", "10.0.0.0/8,::1,", ("10.0.0.0/8", "::1")),
        ("origins", "same", "same"),
        ("origins", "*", "*"),
        ("origins", "https://a.example,https://*.b.example", ("https://a.example", "https://*.b.example")),
        ("ssl_certfile", "none", None),
        ("health_path", "none", None),
        ("control", "/run/app/hubbub.sock", "/run/app/hubbub.sock"),
        ("control", "none", None),
        ("host", "localhost", "localhost"),
        ("host", "127.0.0.1, ::1", ("127.0.0.1", "::1")),
        ("host", "127.0.0.1,", ("127.0.0.1",)),
        ("allowed_hosts", "App.example.com,*.example.org:443,[::1]", ("app.example.com", "*.example.org:443", "[::1]")),
        ("allowed_hosts", "none", None),
    ],
)
def test_text_is_read_by_the_kind_of_the_setting(name: str, text: str, value: object) -> None:
    from_option = getattr(load(options={name: text}), name)
    from_variable = getattr(load(environ={f"HUBBUB_{name.upper()}": text}), name)
    assert from_option == from_variable == value
    assert type(from_option) is type(value)


def test_an_empty_option_is_the_empty_list() -> None:
    assert load(options={"trusted_proxies": ""}).trusted_proxies == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", ""),
        ("port", "http"),
        ("port", "80.0"),
        ("port", "none"),
        ("backlog", "9" * 5000),
        ("close_timeout", "nan"),
        ("close_timeout", "inf"),
        ("close_timeout", "1e999"),
        ("compression", "yes"),
        ("slow_consumer", "wait"),
        ("subprotocols", "chat,chat"),
        ("origins", "example.com"),
        ("allowed_hosts", ""),
        ("allowed_hosts", "*"),
        ("allowed_hosts", "https://app.example.com"),
        ("allowed_hosts", "::1"),
        ("allowed_hosts", "[::g]"),
        ("allowed_hosts", "app.example.com:0"),
        ("host", ","),
        ("host", ""),
        ("max_memory", "half"),
        ("max_memory", "none"),
        ("max_memory", "1GB"),
        ("root_path", "none"),
        ("root_path", "api"),
        ("root_path", "/"),
        ("root_path", "/api/"),
        ("root_path", "/api?x"),
        ("lifespan", "true"),
    ],
)
def test_text_that_spells_no_value_is_refused(name: str, text: str) -> None:
    assert refusal(options={name: text}).startswith(f"{name}: ")


def refused_by_name(name: str, message: str) -> bool:
    """Return whether the message names the setting, or says that certificate and key must be set together."""
    return message.startswith(f"{name}: ") or ("ssl_" in name and "both or neither" in message)


@given(
    name=st.sampled_from(NAMES),
    text=st.text() | st.from_regex(r"[a-z0-9*.:/,\[\]-]{0,40}", fullmatch=True) | st.floats().map(str),
)
def test_no_text_raises_anything_but_a_settings_error(name: str, text: str) -> None:
    for environ, options in (({}, {name: text}), ({f"HUBBUB_{name.upper()}": text}, {})):
        message = ""
        try:
            load(environ=environ, options=options)
        except SettingsError as error:
            message = str(error)
        assert not message or refused_by_name(name, message)


@given(
    name=st.sampled_from(NAMES),
    value=st.from_type(type).flatmap(st.from_type) | st.integers() | st.floats(),
)
def test_no_keyword_raises_anything_but_a_settings_error(name: str, value: Any) -> None:
    message = ""
    try:
        load(**{name: value})
    except SettingsError as error:
        message = str(error)
    assert not message or refused_by_name(name, message)


@given(text=st.text())
def test_a_setting_that_was_accepted_is_accepted_again(text: str) -> None:
    for name in ("host", *LISTS, "health_path", "control"):
        try:
            settings = load(options={name: text})
        except SettingsError:
            continue
        assert replace(settings) == settings


# The types of keywords.


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("port", 0, 65535),
        ("workers", 1, 64),
        ("max_connections", 1, 10_000_000),
        ("max_message_size", 1, 2**31 - 1),
        ("send_queue_size", 1024, 2**31 - 1),
        ("max_memory", 1_048_576, 2**40),
        ("message_timeout", 0.001, 604_800.0),
        ("threads", 1, 1024),
        ("receive_queue", 1, 65536),
        ("compression_threshold", 0, 2**31 - 1),
        ("max_header_size", 256, 1_048_576),
        ("max_body_size", 0, 2**31 - 1),
        ("limit_concurrency", 1, 2**31 - 1),
        ("max_requests", 1, 2**31 - 1),
        ("metrics_port", 1, 65535),
        ("backlog", 1, 65535),
        ("ping_interval", 0.001, 604_800.0),
        ("shutdown_timeout", 0.001, 604_800.0),
    ],
)
def test_numbers_have_a_range(name: str, least: Any, most: Any) -> None:
    for allowed in (least, most):
        assert getattr(load(**{name: allowed}), name) == allowed
    step = 1 if isinstance(least, int) else 0.0005
    for refused in (least - step, most + step):
        assert "is not allowed" in refusal(**{name: refused})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", True),
        ("port", 80.0),
        ("port", "80"),
        ("port", None),
        ("close_timeout", True),
        ("close_timeout", "5"),
        ("close_timeout", None),
        ("close_timeout", float("nan")),
        ("close_timeout", float("inf")),
        ("close_timeout", 0),
        ("compression", 1),
        ("compression", "true"),
        ("slow_consumer", "Drop"),
        ("log_level", 20),
        ("subprotocols", "chat"),
        ("subprotocols", {"chat"}),
        ("subprotocols", [b"chat"]),
        ("subprotocols", ["super chat"]),
        ("subprotocols", ["chat", "chat"]),
        ("subprotocols", None),
        ("trusted_proxies", ["proxy.example"]),
        ("trusted_proxies", ["10.0.0.0/33"]),
        ("host", ""),
        ("host", []),
        ("host", ["127.0.0.1", ""]),
        ("host", "127.0.0.1,::1"),
        ("host", "local\0host"),
        ("host", "local host"),
        ("host", b"localhost"),
        ("health_path", "health"),
        ("health_path", "/health?x"),
        ("health_path", ""),
        ("control", ""),
        ("control", b"/run/hubbub.sock"),
        ("control", "/run/\0"),
        ("max_memory", "Auto"),
        ("max_memory", None),
        ("max_memory", 1e9),
    ],
)
def test_wrong_keywords_are_refused(name: str, value: Any) -> None:
    assert refusal(**{name: value}).startswith(f"{name}: {value!r} (keyword) is not allowed")


def test_an_int_is_fine_where_seconds_are_asked_for() -> None:
    timeout = load(close_timeout=3).close_timeout
    assert timeout == 3.0
    assert isinstance(timeout, float)


def test_paths_may_be_path_objects() -> None:
    settings = load(ssl_certfile=Path("a.pem"), ssl_keyfile=Path("b.pem"), control=Path("/run/c.sock"))
    assert (settings.ssl_certfile, settings.ssl_keyfile, settings.control) == (
        "a.pem",
        "b.pem",
        "/run/c.sock",
    )


def test_lists_are_kept_as_tuples() -> None:
    assert load(subprotocols=["b", "a"]).subprotocols == ("b", "a")


def test_certificate_and_key_come_together() -> None:
    assert "ssl_keyfile: missing" in refusal(ssl_certfile="a.pem")
    assert "ssl_certfile: missing" in refusal(environ={"HUBBUB_SSL_KEYFILE": "b.pem"})


def test_settings_that_options_will_complete_may_contradict_each_other() -> None:
    keywords: dict[str, Any] = {"ssl_keyfile_password": "hunter2", "ssl_ca_certs": "c.pem"}
    with more_follow():
        load(**keywords)
    assert "ssl_keyfile_password: set, although" in refusal(**keywords)
    assert Settings.load(keywords, options={"ssl_certfile": "a.pem", "ssl_keyfile": "b.pem"}).ssl_ca_certs == "c.pem"


def test_no_path_has_a_lone_surrogate() -> None:
    assert refusal(uds="/tmp/\ud800").startswith("uds: ")
    assert load(uds="/tmp/\udcff").uds == "/tmp/\udcff"


def test_directories_may_be_path_objects() -> None:
    assert load(reload_dirs=[Path("/srv"), "pages"]).reload_dirs == ("/srv", "pages")


def test_a_password_is_shown_nowhere() -> None:
    settings = load(ssl_certfile="a.pem", ssl_keyfile="b.pem", ssl_keyfile_password="hunter2")
    assert settings.ssl_keyfile_password == "hunter2"
    assert "hunter2" not in repr(settings)
    for password in (b"hunter2", ["hunter2"], "hunter2\udc80"):
        told = refusal(ssl_certfile="a.pem", ssl_keyfile="b.pem", ssl_keyfile_password=password)
        kind = type(password).__name__
        allowed = "allowed is a text (str), not empty, or None"
        assert told == f"ssl_keyfile_password: <{kind}> (keyword) is not allowed; {allowed}"
    told = refusal(environ={"HUBBUB_SSL_KEYFILE_PASSWORD": "hunter2"})
    assert told == "ssl_keyfile_password: set, although ssl_keyfile is not; allowed is only both"


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://redis.example.com:6380/3",
        "redis://:hunter2@10.0.0.1/",
        "redis://app:hunter2%40@[::1]:6379/0",
        "redis://localhost?username=app&password=hunter2",
        "rediss://cache.example.com?ca_certs=/etc/ca.pem",
        "redis+unix:///run/redis/redis.sock",
        "redis+unix://app:hunter2@/run/redis/redis.sock?db=2",
        "redis+sentinel://main@10.0.0.1:26379,10.0.0.2:26379/0",
        "redis+sentinel://app:hunter2@main@10.0.0.1,[::1]:26379?sentinel_password=hunter2",
    ],
)
def test_a_broker_is_a_url_whose_password_is_shown_nowhere(url: str) -> None:
    settings = load(broker=url)
    assert settings.broker == url
    assert load(environ={"HUBBUB_BROKER": url}) == load(options={"broker": url}) == settings
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in broker_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "http://hunter2@localhost",
        "redis://app:hunter2@",
        "redis://hunter2 @localhost",
        "redis://hunter2#@localhost",
        "redis://:hunter2@localhost/hunter2",
        "redis://:hunter2@localhost:0",
        "redis://:hunter2@localhost:hunter2",
        "redis://:hunter2%ff@localhost",
        "redis://:hunter2%@localhost",
        "redis://localhost?hunter2=hunter2",
        "redis+unix://:hunter2@run/redis.sock",
        "redis+sentinel://hunter2:26379",
        "redis://hunter2\udc80@localhost",
    ],
)
def test_a_wrong_broker_is_refused_without_being_shown(url: str) -> None:
    told = refusal(broker=url)
    assert told.startswith("broker: <str> (keyword) is not allowed: ")
    assert "; allowed is a URL: redis://user:password@host:6379/0, " in told
    assert "hunter2" not in told
    if url.isascii() and url:
        assert "hunter2" not in refusal(environ={"HUBBUB_BROKER": url})


def test_a_broker_may_be_none() -> None:
    assert load(broker=None) == load(options={"broker": "none"}) == load()
    assert refusal(broker=b"redis://localhost").startswith("broker: <bytes> (keyword) is not allowed; allowed is a URL")


def test_the_prefix_of_a_broker_has_no_special_characters() -> None:
    assert load(broker_prefix="live:chat-2.x_").broker_prefix == "live:chat-2.x_"
    for prefix in ("", "x" * 65, "a b", "a{b}", "ä", "a*", "a\n"):
        assert "broker_prefix: " in refusal(broker_prefix=prefix)
    assert "broker_queue_size: " in refusal(broker_queue_size=1024)


def test_what_waits_for_a_broker_can_be_as_long_as_an_outbox() -> None:
    most = 4 * 2**20
    expected = "broker_queue_size: 8388607 is below twice send_queue_size; allowed is 8388608 or more"
    too_little = 2 * most - 1
    assert refusal(broker="redis://localhost", send_queue_size=most, broker_queue_size=too_little) == expected
    assert load(send_queue_size=most, broker_queue_size=too_little).broker is None
    assert load(broker="redis://localhost", send_queue_size=most, broker_queue_size=2 * most).broker


def test_authorities_of_clients_need_tls() -> None:
    assert refusal(ssl_ca_certs="a.pem") == "ssl_ca_certs: set, although ssl_certfile is not; allowed is only both"
    settings = load(ssl_certfile="a.pem", ssl_keyfile="b.pem", ssl_ca_certs=Path("c.pem"))
    assert settings.ssl_ca_certs == "c.pem"


@pytest.mark.parametrize("name", ["max_message_size", "max_body_size"])
def test_all_memory_must_hold_one_message_and_one_body(name: str) -> None:
    allowed: dict[str, Any] = {"max_memory": 2_000_000, name: 2_000_000}
    assert load(**allowed).max_memory == 2_000_000
    assert refusal(**allowed | {"max_memory": 1_999_999}) == (
        f"max_memory: 1999999 is below {name}; allowed is 2000000 or more"
    )


def test_a_body_of_any_length_needs_no_memory_of_that_size() -> None:
    assert load(max_memory=2_000_000, max_body_size=None).max_body_size is None


@pytest.mark.parametrize("network", ["10.0.0.1", "10.0.0.0/8", "172.17.0.1/16", "::1", "fd00::/8"])
def test_proxies_are_addresses_or_networks(network: str) -> None:
    assert load(trusted_proxies=[network]).trusted_proxies == (network,)


# Origins.


@pytest.mark.parametrize(
    ("given_origin", "kept"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://*.example.com", "https://*.example.com"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://[0:0:0:0:0:0:0:1]:9741", "http://[::1]:9741"),
        ("https://[2001:DB8:0:0:1:0:0:0A]:443", "https://[2001:db8::1:0:0:a]"),
        ("http://[::ffff:127.0.0.1]", "http://[::ffff:7f00:1]"),
        ("http://192.0.2.1", "http://192.0.2.1"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("null", "null"),
        # Origins of pages that an application loads from its own files.
        ("file://", "file://"),
        ("app://.", "app://."),
        ("tauri://localhost", "tauri://localhost"),
        ("safari-web-extension://0F2A4C1E-1111", "safari-web-extension://0f2a4c1e-1111"),
        # A browser sends lower case, and no default port (RFC 6454 §6.2).
        ("HTTPS://App.Example.com", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://app.example.com:80", "http://app.example.com"),
        ("http://app.example.com:443", "http://app.example.com:443"),
    ],
)
def test_origins_are_kept_as_a_browser_sends_them(given_origin: str, kept: str) -> None:
    assert load(origins=[given_origin]).origins == (kept,)
    assert load(origins=given_origin).origins == (kept,)
    assert load(environ={"HUBBUB_ORIGINS": given_origin}).origins == (kept,)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "app.example.com",
        "https://",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://user@app.example.com",
        "https://app.example.com:",
        "https://app.example.com:0",
        "https://app.example.com:65536",
        "https://*",
        "https://app.*.com",
        "https://*example.com",
        "https://[::1",
        "https://[::g]",
        "https://[1.2]",
        "https://bücher.example",
        "https://app.example.com https://b.example",
        "https://app.example.com\n",
        "file:///",
        "file:",
        "file://*.",
        "https://..",
    ],
)
def test_what_no_browser_sends_is_no_origin(origin: str) -> None:
    assert f"{origin!r} is not one" in refusal(origins=["https://fine.example", origin])


def test_same_stands_alone() -> None:
    assert "'same' must stand alone" in refusal(origins=["same", "https://app.example.com"])


def test_one_word_is_kept_as_the_word() -> None:
    assert load(origins=["same"]).origins == load(origins="same").origins == "same"
    assert load(origins=("*",)).origins == load(origins="*").origins == "*"


def test_allowed_origins_are_a_tuple_in_every_case() -> None:
    assert load().allowed_origins == ("same",)
    assert load(origins=["https://a.example", "null"]).allowed_origins == ("https://a.example", "null")
    assert load(origins=[]).allowed_origins == ()


def test_hosts_are_a_tuple_in_every_case() -> None:
    assert load().hosts == ("127.0.0.1",)
    settings = load(host=["127.0.0.1", "::1"])
    assert settings.host == settings.hosts == ("127.0.0.1", "::1")


# Error messages.


def test_an_error_names_setting_source_value_and_what_is_allowed() -> None:
    assert refusal(max_message_size=0) == (
        "max_message_size: 0 (keyword) is not allowed; allowed is an integer from 1 to 2,147,483,647 bytes"
    )
    assert refusal(environ={"HUBBUB_MAX_MESSAGE_SIZE": "1M"}) == (
        "max_message_size: '1M' (variable HUBBUB_MAX_MESSAGE_SIZE) is not allowed; "
        "allowed is an integer from 1 to 2,147,483,647 bytes"
    )
    assert "(option --max-message-size)" in refusal(options={"max_message_size": "1M"})


def test_an_error_tells_which_entry_of_a_list_is_wrong() -> None:
    message = refusal(environ={"HUBBUB_TRUSTED_PROXIES": "10.0.0.1,proxy"})
    assert "'10.0.0.1,proxy' (variable HUBBUB_TRUSTED_PROXIES) is not allowed: 'proxy' is not one" in message
    assert "'b' is listed twice" in refusal(subprotocols=["a", "b", "b"])


def test_an_unknown_name_gets_a_suggestion() -> None:
    assert "did you mean max_message_size?" in refusal(max_mesage_size=1)
    assert "(option)" in refusal(options={"max_mesage_size": "1"})


def test_an_unknown_name_that_resembles_none_gets_the_list() -> None:
    message = refusal(zzz=1)
    assert all(name in message for name in NAMES)


def test_an_error_stays_short_whatever_was_given() -> None:
    assert len(refusal(host="x " * 10_000)) < 300
    assert "<int>" in refusal(backlog=10**5000)


# Everything that derives from the table.


def test_the_description_has_each_setting_in_order() -> None:
    described = Settings.describe()
    assert [setting.name for setting in described] == NAMES
    for setting in described:
        assert setting.doc.endswith(".")
        assert getattr(load(), setting.name) == setting.default


def test_option_and_variable_derive_from_the_name() -> None:
    setting = next(each for each in Settings.describe() if each.name == "max_message_size")
    assert isinstance(setting, Setting)
    assert setting.option == "--max-message-size"
    assert setting.variable == "HUBBUB_MAX_MESSAGE_SIZE"
    assert setting.kind.allowed == "an integer from 1 to 2,147,483,647 bytes"


def test_workers_may_be_given() -> None:
    assert load(workers=3).worker_count == 3


def test_without_workers_there_is_one_for_each_usable_core() -> None:
    assert load().workers is None
    assert 1 <= load().worker_count <= min(os.cpu_count() or 1, 64)


def test_there_are_never_more_than_64_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.settings._usable_cores", lambda: 128)
    assert load().worker_count == 64
