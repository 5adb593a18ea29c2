//! The pause program: holds a pod's namespaces. A tiny static ELF made here byte by byte, so that a fresh node needs
//! no image from anywhere (DESIGN D6).
//!
//! What it does: blocks SIGINT, SIGTERM and SIGCHLD, waits for them, reaps children on SIGCHLD (it is init where a
//! pod shares its process namespace) and exits with 0 on the other two. It blocks and waits instead of setting
//! handlers because the kernel drops unhandled signals to an init process, but not blocked ones.

use anyhow::Context;
use sha2::{Digest, Sha256};

/// Name of the image that holds it; the tag rises with each change of the program.
pub const IMAGE: &str = "kedge.local/pause:1";

/// Where the program is loaded.
const LOAD_ADDRESS: u64 = 0x40_0000;
const EHDR_BYTES: u64 = 64;
const PHDR_BYTES: u64 = 56;

/// A machine that we have code for.
struct Machine {
    /// `e_machine`
    elf: u16,
    code: &'static [u8],
}

/// x86-64 code, assembled by hand.
#[rustfmt::skip]
const X86_64: &[u8] = &[
    0x68, 0x02, 0x40, 0x01, 0x00,             //     push 0x14002         mask: bits of SIGINT, SIGTERM, SIGCHLD
    0x48, 0x89, 0xe6,                         //     mov  rsi, rsp
    0x31, 0xff,                               //     xor  edi, edi        SIG_BLOCK
    0x31, 0xd2,                               //     xor  edx, edx
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00,       //     mov  r10d, 8         bytes of the mask
    0xb8, 0x0e, 0x00, 0x00, 0x00,             //     mov  eax, 14         rt_sigprocmask
    0x0f, 0x05,                               //     syscall
    0x48, 0x89, 0xe7,                         // w:  mov  rdi, rsp
    0x31, 0xf6,                               //     xor  esi, esi
    0x31, 0xd2,                               //     xor  edx, edx        no timeout
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00,       //     mov  r10d, 8
    0xb8, 0x80, 0x00, 0x00, 0x00,             //     mov  eax, 128        rt_sigtimedwait
    0x0f, 0x05,                               //     syscall
    0x83, 0xf8, 0x11,                         //     cmp  eax, 17         SIGCHLD
    0x74, 0x13,                               //     je   r
    0x83, 0xf8, 0x0f,                         //     cmp  eax, 15         SIGTERM
    0x74, 0x05,                               //     je   x
    0x83, 0xf8, 0x02,                         //     cmp  eax, 2          SIGINT
    0x75, 0xdd,                               //     jne  w               EINTR and the like
    0x31, 0xff,                               // x:  xor  edi, edi
    0xb8, 0xe7, 0x00, 0x00, 0x00,             //     mov  eax, 231        exit_group
    0x0f, 0x05,                               //     syscall
    0x48, 0x83, 0xcf, 0xff,                   // r:  or   rdi, -1         any child
    0x31, 0xf6,                               //     xor  esi, esi
    0xba, 0x01, 0x00, 0x00, 0x00,             //     mov  edx, 1          WNOHANG
    0x45, 0x31, 0xd2,                         //     xor  r10d, r10d
    0xb8, 0x3d, 0x00, 0x00, 0x00,             //     mov  eax, 61         wait4
    0x0f, 0x05,                               //     syscall
    0x85, 0xc0,                               //     test eax, eax
    0x7f, 0xe7,                               //     jg   r               one reaped, maybe more
    0xeb, 0xb9,                               //     jmp  w
];

/// AArch64 code, the same program.
#[rustfmt::skip]
const AARCH64: &[u8] = &words([
    0xd2880041,                               //     movz x1, #0x4002
    0xf2a00021,                               //     movk x1, #1, lsl #16
    0xf81f0fe1,                               //     str  x1, [sp, #-16]!
    0xd2800000,                               //     mov  x0, #0          SIG_BLOCK
    0x910003e1,                               //     mov  x1, sp
    0xd2800002,                               //     mov  x2, #0
    0xd2800103,                               //     mov  x3, #8
    0xd28010e8,                               //     mov  x8, #135        rt_sigprocmask
    0xd4000001,                               //     svc  #0
    0x910003e0,                               // w:  mov  x0, sp
    0xd2800001,                               //     mov  x1, #0
    0xd2800002,                               //     mov  x2, #0
    0xd2800103,                               //     mov  x3, #8
    0xd2801128,                               //     mov  x8, #137        rt_sigtimedwait
    0xd4000001,                               //     svc  #0
    0x7100441f,                               //     cmp  w0, #17
    0x54000100,                               //     b.eq r
    0x71003c1f,                               //     cmp  w0, #15
    0x54000060,                               //     b.eq x
    0x7100081f,                               //     cmp  w0, #2
    0x54fffea1,                               //     b.ne w
    0xd2800000,                               // x:  mov  x0, #0
    0xd2800bc8,                               //     mov  x8, #94         exit_group
    0xd4000001,                               //     svc  #0
    0x92800000,                               // r:  mov  x0, #-1
    0xd2800001,                               //     mov  x1, #0
    0xd2800022,                               //     mov  x2, #1          WNOHANG
    0xd2800003,                               //     mov  x3, #0
    0xd2802088,                               //     mov  x8, #260        wait4
    0xd4000001,                               //     svc  #0
    0x7100001f,                               //     cmp  w0, #0
    0x54ffff2c,                               //     b.gt r
    0x17ffffe9,                               //     b    w
]);

const fn words(words: [u32; 33]) -> [u8; 132] {
    let mut bytes = [0; 132];
    let mut i = 0;
    while i < 132 {
        bytes[i] = words[i / 4].to_le_bytes()[i % 4];
        i += 1;
    }
    bytes
}

/// The architecture as OCI names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn machine(arch: &str) -> Option<Machine> {
    match arch {
        "amd64" => Some(Machine { elf: 62, code: X86_64 }),
        "arm64" => Some(Machine { elf: 183, code: AARCH64 }),
        _ => None,
    }
}

/// The program as an ELF file: one header, one loadable segment, no sections.
pub fn program(arch: &str) -> Option<Vec<u8>> {
    let Machine { elf, code } = machine(arch)?;
    let code_at = EHDR_BYTES + PHDR_BYTES;
    let size = code_at + code.len() as u64;
    let mut out = Vec::with_capacity(size as usize);
    out.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bit, little-endian, version 1, System V
    out.extend(2u16.to_le_bytes()); // ET_EXEC
    out.extend(elf.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend((LOAD_ADDRESS + code_at).to_le_bytes()); // entry
    out.extend(EHDR_BYTES.to_le_bytes()); // program headers
    out.extend(0u64.to_le_bytes()); // no section headers
    out.extend(0u32.to_le_bytes()); // flags
    for half in [EHDR_BYTES as u16, PHDR_BYTES as u16, 1, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    out.extend(1u32.to_le_bytes()); // PT_LOAD
    out.extend(5u32.to_le_bytes()); // read, execute
    for long in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1_0000] {
        out.extend(u64::to_le_bytes(long)); // offset, addresses, sizes, alignment for pages of up to 64 KiB
    }
    out.extend(code);
    Some(out)
}

/// A blob of an image and its digest.
pub struct Blob {
    pub digest: String,
    pub bytes: Vec<u8>,
}

impl Blob {
    pub fn new(bytes: Vec<u8>) -> Self {
        Blob { digest: digest(&bytes), bytes }
    }
}

/// `sha256:…` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The image's blobs: layer, configuration, manifest.
pub struct Image {
    pub layer: Blob,
    pub config: Blob,
    pub manifest: Blob,
}

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// The pause image for this machine; always the same bytes, so its digest says whether it is there already.
pub fn image() -> anyhow::Result<Image> {
    let arch = architecture();
    let program = program(arch).with_context(|| format!("no pause program for architecture {arch}"))?;
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, "pause", program.as_slice())?;
    let layer = Blob::new(tar.into_inner()?);
    let config = Blob::new(serde_json::to_vec(&serde_json::json!({
        "architecture": arch, "os": "linux",
        "config": {"Entrypoint": ["/pause"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    }))?);
    let manifest = Blob::new(serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": config.digest, "size": config.bytes.len()},
        "layers": [{"mediaType": LAYER_TYPE, "digest": layer.digest, "size": layer.bytes.len()}],
    }))?);
    Ok(Image { layer, config, manifest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::os::unix::fs::PermissionsExt;

    /// The real program, run: it does not end by itself, takes the signals it waits for, and no others.
    #[test]
    fn runs_until_told_to_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        std::fs::write(&path, program(architecture()).unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let waiting_call = if architecture() == "amd64" { "128 " } else { "137 " };
        for (signals, code, signal) in [
            (&[Signal::SIGCHLD, Signal::SIGTERM][..], Some(0), None),
            (&[Signal::SIGCHLD, Signal::SIGINT][..], Some(0), None),
            (&[Signal::SIGCHLD, Signal::SIGUSR1][..], None, Some(Signal::SIGUSR1 as i32)),
        ] {
            let mut child = std::process::Command::new(&path).spawn().unwrap();
            let pid = Pid::from_raw(child.id() as i32);
            for signal in signals {
                while !std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap().starts_with(waiting_call) {
                    std::thread::yield_now();
                }
                kill(pid, *signal).unwrap();
            }
            let status = child.wait().unwrap();
            assert_eq!((status.code(), std::os::unix::process::ExitStatusExt::signal(&status)), (code, signal));
        }
    }

    #[test]
    fn both_machines_have_a_whole_program() {
        for arch in ["amd64", "arm64"] {
            let elf = program(arch).unwrap();
            assert_eq!(&elf[..4], b"\x7fELF");
            let entry = u64::from_le_bytes(elf[24..32].try_into().unwrap());
            assert_eq!(entry, LOAD_ADDRESS + EHDR_BYTES + PHDR_BYTES);
        }
        assert!(program("riscv64").is_none());
    }
}
