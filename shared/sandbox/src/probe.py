import errno
import os
import socket
import time


def add(a, b):
    return a + b


def reads(path):
    try:
        with open(path, "rb") as file:
            return len(file.read(1)) >= 0
    except OSError:
        return False


def writes(folders):
    done = []
    for folder in folders:
        try:
            os.mkdir(os.path.join(folder, "written"))
            done.append(folder)
        except OSError:
            pass
    return done


def socket_made():
    try:
        socket.socket().close()
        return True
    except OSError:
        return False


def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def started(tries):
    children = []
    try:
        for _ in range(tries):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            children.append(child)
    except OSError:
        pass
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return len(children)


def takes(size):
    try:
        return len(bytearray(size)) == size
    except MemoryError:
        return False


def privileged():
    """What only a process with capabilities, here or in a user namespace of its own, may do."""
    deeds = [lambda: os.chroot("/"), lambda: socket.sethostname("probe")]
    if hasattr(os, "unshare"):
        deeds.append(lambda: os.unshare(os.CLONE_NEWUSER))
    for deed in deeds:
        try:
            deed()
            return True
        except OSError as error:
            if error.errno != errno.EPERM:
                return True
    return False


def sleep():
    time.sleep(60)
