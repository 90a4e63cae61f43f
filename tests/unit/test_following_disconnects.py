"""What an application raises after a client has left, and what it raises for other reasons."""

from hubbub.asgi.front import _follows_disconnect
from hubbub.asgi.http import ClientDisconnected


def after(error: BaseException, before: BaseException) -> BaseException:
    error.__context__ = before
    return error


def test_an_exception_that_follows_a_disconnect_is_recognized() -> None:
    assert _follows_disconnect(ClientDisconnected())
    assert _follows_disconnect(after(ValueError(), after(KeyError(), ClientDisconnected())))
    assert _follows_disconnect(
        BaseExceptionGroup("", [ClientDisconnected(), after(ValueError(), ClientDisconnected())])
    )
    assert not _follows_disconnect(ValueError())
    assert not _follows_disconnect(BaseExceptionGroup("", [ClientDisconnected(), ValueError()]))


def test_a_group_may_be_the_context_of_its_member() -> None:
    member = ValueError()
    group = BaseExceptionGroup("", [member])
    member.__context__ = group
    assert not _follows_disconnect(group)
    assert not _follows_disconnect(member)
