"""A real HTTP server on the loopback that serves bytes well, or badly in the ways that servers do."""

import contextlib
import hashlib
import http.server
import socket
import threading
import time
from itertools import chain, repeat


def fine(handler, content):
    """As a good server does: with a length, a validator, and ranges."""
    begin, tag = 0, f'"{hashlib.sha256(content).hexdigest()[:8]}"'
    wanted = handler.headers.get("Range")
    if wanted and handler.headers.get("If-Range", tag) == tag:
        begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if begin >= len(content):
            return handler.head(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": 0})
    headers = {"Content-Length": len(content) - begin, "ETag": tag, "Accept-Ranges": "bytes"}
    if begin:
        headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
    handler.head(206 if begin else 200, headers)
    handler.wfile.write(content[begin:])


def cut(share):
    """A good server whose connections break after this share of the file."""
    def behave(handler, content):
        write, handler.wfile = handler.wfile, _Short(handler.wfile, int(share * len(content)))
        with contextlib.suppress(ConnectionAbortedError):
            fine(handler, content)
        handler.wfile = write
        write.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
    return behave


class _Short:
    """A stream that takes so many bytes of a body, then breaks. Headers, which http.server writes at once, pass."""

    def __init__(self, stream, left):
        self.stream, self.left, self.body = stream, left, False

    def write(self, block):
        if block.startswith(b"HTTP/"):
            return self.stream.write(block)
        self.stream.write(block[: self.left])
        raise ConnectionAbortedError

    def flush(self):
        self.stream.flush()


def no_ranges(handler, content):
    """Always the whole file, with nothing to tell its version by."""
    handler.head(200, {"Content-Length": len(content)})
    handler.wfile.write(content)


def no_ranges_cut(handler, content):
    handler.head(200, {"Content-Length": len(content)})
    handler.wfile.write(content[: len(content) // 2])


def no_length_cut(handler, content):
    """Neither a length nor chunks: the end of the connection is all that tells the end of the file."""
    handler.head(200, {"ETag": '"a"'})
    handler.wfile.write(content[: len(content) // 2])


def too_long(handler, content):
    handler.head(200, {})
    handler.wfile.write(content + b"!" * 1000)


def wrong_length(handler, content):
    """A length that is less than the file's, and so much of it."""
    handler.head(200, {"Content-Length": len(content) - 10})
    handler.wfile.write(content[:-10])


def wrong_content(handler, content):
    handler.head(200, {"Content-Length": len(content)})
    handler.wfile.write(content[: len(content) // 2] + bytes(byte ^ 0xFF for byte in content[len(content) // 2 :]))


def login_page(handler, content):
    page = b"<html>Please log in to this network.</html>"
    handler.head(200, {"Content-Length": len(page), "Content-Type": "text/html"})
    handler.wfile.write(page)


def redirect(handler, content):
    handler.head(302, {"Location": handler.path, "Content-Length": 0})


def drip(handler, content):
    """A byte now and then."""
    handler.head(200, {"Content-Length": len(content), "ETag": '"a"'})
    with contextlib.suppress(OSError):
        for byte in content:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.02)


def silent(handler, content):
    time.sleep(2)


def status(code):
    def behave(handler, content):
        handler.head(code, {"Content-Length": 0})
    return behave


class Server(http.server.ThreadingHTTPServer):
    """files: {path: bytes}. ways: how the next requests are answered, in order; the last one stays. asked: what came."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.asked, self.address = {}, [], f"http://127.0.0.1:{self.server_port}"
        self.behave(fine)

    def behave(self, *ways):
        self.ways = chain(ways, repeat(ways[-1]))
        self.asked.clear()

    def handle_error(self, *_):
        pass  # the other side may hang up when it likes


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        path = self.path.removeprefix(self.server.address)
        if path not in self.server.files:
            return status(404)(self, b"")
        next(self.server.ways)(self, self.server.files[path])

    def head(self, code, headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving():
    server = Server()
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()  # seconds between looks at shutdown
    yield server
    server.shutdown()
    server.server_close()
