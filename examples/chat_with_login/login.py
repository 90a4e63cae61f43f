"""Logging in and out: a form sets the cookie of a session, and another one deletes it.

Nothing here limits how many passwords somebody tries, or how many accounts; a site on the internet should.
"""

import accounts

from hubbub import Endpoint, Request, Response, Server

login, logout = Endpoint("/login"), Endpoint("/logout")


# Checking a password takes a while, on purpose.
@login.on("request", threaded=True)
def on_login(server: Server, request: Request) -> Response:
    # A page of another site must not log its visitors in here, under a name of its choice.
    if request.method != "POST" or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return Response("Log in with the form.", 403)
    try:
        name, password = request.form.get("name", ""), request.form.get("password", "")
    except ValueError as error:
        return Response(str(error), 400, content_type="text/plain")
    user = accounts.log_in(name, password)
    if user is None:
        return Response.redirect("/#refused")
    session, is_secure = accounts.session_for(user), request.scheme == "https"
    return Response.redirect("/chat/lobby").set_cookie("session", session, max_age=accounts.LIFETIME, secure=is_secure)


@logout.on("request")
def on_logout(server: Server, request: Request) -> Response:
    return Response.redirect("/").delete_cookie("session")
