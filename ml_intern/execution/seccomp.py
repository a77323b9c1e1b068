"""The system calls that code in the jail may not make, as a BPF program that the kernel runs before each call.

A deny-list: what opens a way out of a namespace, at another process or at rarely used kernel code. Everything else is
left to the mounts and namespaces (bubblewrap) or to Landlock. Numbers are the kernel's own, per architecture.
"""

from __future__ import annotations

import errno
import platform
import struct

# name: (x86_64, aarch64)
DENIED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "kcmp": (312, 272), "process_madvise": (440, 440), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "fanotify_init": (300, 262),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58),
}  # fmt: skip
# Without namespaces of their own (Landlock) these would reach other programs of the same user.
DENIED_WITHOUT_NAMESPACES = {
    "connect": (42, 203), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190),
    "semop": (65, 193), "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180),
}  # fmt: skip
CLONE, CLONE3, SOCKET, SOCKETPAIR, IOCTL = (56, 220), (435, 435), (41, 198), (53, 199), (16, 29)
# NEWTIME | NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
CLONE_NAMESPACES = 0x80 | 0x20000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_TYPE_MASK, SOCK_STREAM, SOCK_SEQPACKET = 0xF, 1, 5
TIOCSTI, TIOCLINUX = 0x5412, 0x541C

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUAL, GREATER_EQUAL, BITS, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
NUMBER_AT, ARCH_AT, FIRST_ARGUMENT_AT, SECOND_ARGUMENT_AT = 0, 4, 16, 24


def supported() -> bool:
    return platform.machine() in ARCHITECTURES


def program(*, namespaces: bool) -> bytes:
    """The filter as `struct sock_filter[]`.

    Args:
        namespaces (`bool`): Whether the code gets network and IPC namespaces of its own. If not, sockets and System V
            IPC are denied altogether: a path such as `/var/run/docker.sock` is a way out that Landlock does not close.
    """
    column, audit = ARCHITECTURES[platform.machine()]
    code: list[tuple[int, int, int, int]] = []

    def give(value: int) -> tuple[int, int, int, int]:
        return (RETURN, 0, 0, value)

    def guard(call: tuple[int, int], *inner: tuple[int, int, int, int]) -> None:
        """`inner` for one system call; it falls through to a reload of the number."""
        code.append((EQUAL, 0, len(inner) + 1, call[column]))
        code.extend(inner)
        code.append((LOAD, 0, 0, NUMBER_AT))

    refused = give(ERRNO | errno.EPERM)
    code += [(LOAD, 0, 0, ARCH_AT), (EQUAL, 1, 0, audit), give(KILL_PROCESS), (LOAD, 0, 0, NUMBER_AT)]
    if column == 0:  # the x32 calls would go round every number below
        code += [(GREATER_EQUAL, 0, 1, 0x40000000), give(ERRNO | errno.ENOSYS)]
    for numbers in (DENIED if namespaces else DENIED | DENIED_WITHOUT_NAMESPACES).values():
        code += [(EQUAL, 0, 1, numbers[column]), refused]
    # clone3 hides its flags in memory; ENOSYS sends libc back to clone, whose flags can be looked at.
    code += [(EQUAL, 0, 1, CLONE3[column]), give(ERRNO | errno.ENOSYS)]
    guard(CLONE, (LOAD, 0, 0, FIRST_ARGUMENT_AT), (BITS, 0, 1, CLONE_NAMESPACES), refused)
    guard(IOCTL, (LOAD, 0, 0, SECOND_ARGUMENT_AT), (EQUAL, 1, 0, TIOCSTI), (EQUAL, 0, 1, TIOCLINUX), refused)
    unavailable = give(ERRNO | errno.EAFNOSUPPORT)
    if namespaces:
        families = [(EQUAL, 3 - i, 0, f) for i, f in enumerate((AF_UNIX, AF_INET, AF_INET6))]
        guard(SOCKET, (LOAD, 0, 0, FIRST_ARGUMENT_AT), *families, (EQUAL, 0, 1, AF_NETLINK), give(ALLOW), unavailable)
    else:
        # A datagram socketpair can still send to a path; stream and seqpacket pairs cannot.
        code += [(EQUAL, 0, 1, SOCKET[column]), unavailable]
        kind = [(LOAD, 0, 0, SECOND_ARGUMENT_AT), (AND, 0, 0, SOCK_TYPE_MASK)]
        guard(SOCKETPAIR, *kind, (EQUAL, 2, 0, SOCK_STREAM), (EQUAL, 1, 0, SOCK_SEQPACKET), unavailable)
    code.append(give(ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
