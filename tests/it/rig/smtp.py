"""A mail relay that keeps what it is given: smtp.py PORT FOLDER [CERTIFICATE KEY USER PASSWORD]

Each mail is a file of FOLDER, as JSON. While FOLDER/refuse is there, recipients are refused with what
it says. With a certificate it wants STARTTLS, and then a name and a password.
"""

import email
import email.policy
import json
import os
import signal
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

port, folder, *more = sys.argv[1:]
count = 0


class Keeper:
    async def handle_RCPT(self, server, session, envelope, address, options):
        refuse = os.path.join(folder, "refuse")
        if os.path.exists(refuse):
            with open(refuse) as file:
                return file.read().strip()
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        global count
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        kept = {
            "to": envelope.rcpt_tos,
            "from": envelope.mail_from,
            "headers": {name.lower(): str(value) for name, value in mail.items()},
            "text": mail.get_body(("plain",)).get_content(),
            "html": mail.get_body(("html",)).get_content(),
        }
        count += 1
        path = os.path.join(folder, f"{os.getpid():08}-{count:06}")
        with open(path + ".new", "w") as file:
            json.dump(kept, file)
        os.rename(path + ".new", path + ".json")
        return "250 kept"


options = {}
if more:
    certificate, key, user, password = more
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def check(server, session, envelope, mechanism, data):
        good = isinstance(data, LoginPassword) and (
            data.login == user.encode() and data.password == password.encode()
        )
        return AuthResult(success=good)

    options = {
        "tls_context": context,
        "require_starttls": True,
        "auth_required": True,
        "authenticator": check,
    }

controller = Controller(Keeper(), hostname="127.0.0.1", port=int(port), **options)
controller.start()
print("ready", flush=True)
signal.sigwait([signal.SIGTERM, signal.SIGINT])
