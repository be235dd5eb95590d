//! As much of the processor's language as is needed to see read-modify-writes (Intel SDM volume 2,
//! chapter 2).

use nix::libc::user_regs_struct as Registers;

/// The address that an instruction locks; `None`: it locks nothing.
pub(crate) fn locked(code: &[u8], registers: &Registers) -> Option<u64> {
    let mut rest = code.iter().copied();
    let mut next = || rest.next();
    let (mut is_locked, mut is_thread, mut rex, mut used) = (false, false, 0, 0_u64);
    let mut op = loop {
        let byte = next()?;
        used += 1;
        match byte {
            0xF0 => is_locked = true,
            0x64 => is_thread = true,
            0x26 | 0x2E | 0x36 | 0x3E | 0x65 | 0x66 | 0x67 | 0xF2 | 0xF3 => {}
            0x40..=0x4F => rex = byte,
            op => break u16::from(op),
        }
    };
    if op == 0x0F {
        op = 0x0F00 | u16::from(next()?);
        used += 1;
    }
    let form = next()?;
    used += 1;
    let (mode, base) = (form >> 6, form & 7);
    // An exchange with memory is locked without being told.
    let is_exchange = matches!(op, 0x86 | 0x87);
    if !(is_locked || is_exchange) || mode == 3 {
        return None;
    }
    let mut address = 0_u64;
    let mut has_wide = mode == 2;
    if base == 4 {
        let scaled = next()?;
        let index = (scaled >> 3 & 7) | (rex & 2) << 2;
        if index != 4 {
            address = register(registers, index) << (scaled >> 6);
        }
        let base = scaled & 7;
        if base == 5 && mode == 0 {
            has_wide = true;
        } else {
            address = address.wrapping_add(register(registers, base | (rex & 1) << 3));
        }
    } else if base == 5 && mode == 0 {
        // Behind this instruction: what follows the address is a number in some.
        let number = match op {
            0x80 | 0x83 | 0x0FBA => 1,
            0x81 | 0xC7 => 4,
            _ => 0,
        };
        has_wide = true;
        address = registers.rip + used + 4 + number;
    } else {
        address = register(registers, base | (rex & 1) << 3);
    }
    let away = match (mode, has_wide) {
        (1, _) => i64::from(i8::from_le_bytes([next()?])),
        (_, true) => i64::from(i32::from_le_bytes([next()?, next()?, next()?, next()?])),
        _ => 0,
    };
    let segment = if is_thread { registers.fs_base } else { 0 };
    Some(address.wrapping_add_signed(away).wrapping_add(segment))
}

fn register(registers: &Registers, number: u8) -> u64 {
    match number {
        0 => registers.rax,
        1 => registers.rcx,
        2 => registers.rdx,
        3 => registers.rbx,
        4 => registers.rsp,
        5 => registers.rbp,
        6 => registers.rsi,
        7 => registers.rdi,
        8 => registers.r8,
        9 => registers.r9,
        10 => registers.r10,
        11 => registers.r11,
        12 => registers.r12,
        13 => registers.r13,
        14 => registers.r14,
        _ => registers.r15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        // All zero but these.
        let mut r: Registers = registers();
        (r.rax, r.rcx, r.r12, r.rip, r.fs_base) = (0x1000, 0x20, 0x5000, 0x400, 0x9000);
        for (code, address) in [
            // lock xadd [rax], rcx
            (&[0xF0, 0x48, 0x0F, 0xC1, 0x08][..], Some(0x1000)),
            // lock cmpxchg [rax+rcx*8-16], rdx
            (&[0xF0, 0x48, 0x0F, 0xB1, 0x54, 0xC8, 0xF0], Some(0x10F0)),
            // lock dec qword [r12+0x100]
            (&[0xF0, 0x49, 0xFF, 0x8C, 0x24, 0, 1, 0, 0], Some(0x5100)),
            // xchg [rip+0x10], rax: seven bytes long
            (&[0x48, 0x87, 0x05, 0x10, 0, 0, 0], Some(0x417)),
            // lock add dword [rip+0x10], 1: eight bytes long
            (&[0xF0, 0x83, 0x05, 0x10, 0, 0, 0, 1], Some(0x418)),
            // lock inc dword fs:[0x8]
            (&[0x64, 0xF0, 0xFF, 0x04, 0x25, 8, 0, 0, 0], Some(0x9008)),
            // xchg rax, rcx; mov [rax], rcx
            (&[0x48, 0x87, 0xC8], None),
            (&[0x48, 0x89, 0x08], None),
        ] {
            assert_eq!(locked(code, &r), address, "{code:x?}");
        }
    }

    fn registers() -> Registers {
        Registers {
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rax: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            orig_rax: 0,
            rip: 0,
            cs: 0,
            eflags: 0,
            rsp: 0,
            ss: 0,
            fs_base: 0,
            gs_base: 0,
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
        }
    }
}
