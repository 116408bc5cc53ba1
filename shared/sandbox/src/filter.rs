/// System calls that no solution needs and that reach past namespaces and limits: sockets (those of a virtual machine's
/// host belong to no namespace), memory that no limit counts, other processes' memory, and parts of the kernel that were
/// the way out of many a sandbox. Numbers of x86-64 and of arm64.
const REFUSED: [(&str, u32, u32); 28] = [
    ("socket", 41, 198),
    ("shmget", 29, 194),
    ("shmat", 30, 196),
    ("semget", 64, 190),
    ("msgget", 68, 186),
    ("mq_open", 240, 180),
    ("memfd_create", 319, 279),
    ("memfd_secret", 447, 447),
    ("ptrace", 101, 117),
    ("process_vm_readv", 310, 270),
    ("process_vm_writev", 311, 271),
    ("pidfd_getfd", 438, 438),
    ("kcmp", 312, 272),
    ("unshare", 272, 97),
    ("setns", 308, 268),
    ("add_key", 248, 217),
    ("request_key", 249, 218),
    ("keyctl", 250, 219),
    ("bpf", 321, 280),
    ("perf_event_open", 298, 241),
    ("userfaultfd", 323, 282),
    ("io_uring_setup", 425, 425),
    ("io_uring_enter", 426, 426),
    ("io_uring_register", 427, 427),
    ("name_to_handle_at", 303, 264),
    ("open_by_handle_at", 304, 265),
    ("fanotify_init", 300, 262),
    ("personality", 135, 92),
];

const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const KILL: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
const REFUSE: u32 = 0x0005_0000 | 1; // EPERM
const UNKNOWN: u32 = 0x0005_0000 | 0x26; // ENOSYS: the C library then uses clone, whose flags can be looked at

/// Flags of `clone` that make namespaces.
const NAMESPACES: u32 = 0x7e02_0000;

/// The filter as a program of the kernel's (classic BPF), in hexadecimal; nothing on processors whose numbers are not
/// known here.
pub(crate) fn program() -> Option<String> {
    let (architecture, clone, arm) = match std::env::consts::ARCH {
        "x86_64" => (0xc000_003e, 56, false),
        "aarch64" => (0xc000_00b7, 220, true),
        _ => return None,
    };
    let mut code = vec![
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_IF_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        // The 32-bit numbering of x86-64 starts here.
        (JUMP_IF_AT_LEAST, 0, 1, 0x4000_0000),
        (RETURN, 0, 0, KILL),
        (JUMP_IF_EQUAL, 0, 1, 435), // clone3, on both
        (RETURN, 0, 0, UNKNOWN),
    ];
    for (_, x86, arm64) in REFUSED {
        code.extend([(JUMP_IF_EQUAL, 0, 1, if arm { arm64 } else { x86 }), (RETURN, 0, 0, REFUSE)]);
    }
    code.extend([
        (JUMP_IF_EQUAL, 0, 3, clone),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (JUMP_IF_BITS, 0, 1, NAMESPACES),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    ]);
    Some(code.into_iter().flat_map(instruction).collect())
}

fn instruction((code, then, otherwise, value): (u16, u8, u8, u32)) -> Vec<String> {
    let bytes = [&code.to_ne_bytes()[..], &[then, otherwise], &value.to_ne_bytes()].concat();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
