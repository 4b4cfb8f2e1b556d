//! The kernel's audit log, which says what Landlock has refused and what a process has died of.
#![allow(clippy::host_endian_bytes, reason = "netlink has the byte order of the host (netlink(7))")]

use std::{
    cell::RefCell,
    fs,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
        setsockopt, socket, sockopt,
    },
};

/// How many listen. The log is switched on for them, if it was off.
static LISTENERS: Mutex<Listeners> = Mutex::new(Listeners { count: 0, switched_on: false });

struct Listeners {
    count: usize,
    switched_on: bool,
}

/// Somebody who reads along (`AUDIT_NLGRP_READLOG`, linux/audit.h).
pub struct KernelAudit {
    socket: OwnedFd,
    heard: RefCell<Vec<String>>,
}

/// Room for what is said while nobody reads, in bytes; the usual one is full after 255 records, and every process of the
/// machine is in them.
const ROOM: usize = 4 << 20;
/// How long the kernel may take to write down what has happened.
const PATIENCE: Duration = Duration::from_secs(5);
/// Messages and their header (linux/netlink.h), and what is asked of the audit (linux/audit.h).
const AUDIT_GET: u16 = 1_000;
const AUDIT_SET: u16 = 1_001;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const HEADER: usize = 16;
const STATUS_WORDS: usize = 10;

impl KernelAudit {
    /// Starts to read. `None` where only another may, or there is no such log.
    pub fn listen() -> Option<Self> {
        let group = audit_socket().ok()?;
        setsockopt(&group, sockopt::RcvBufForce, &ROOM).ok()?;
        bind(group.as_raw_fd(), &NetlinkAddr::new(0, 1)).ok()?;
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_on()? {
            switch(true)?;
            listeners.switched_on = true;
        }
        listeners.count += 1;
        Some(Self { socket: group, heard: RefCell::default() })
    }

    /// Whether Landlock writes down what it refuses, as it does from Linux 6.15 on.
    pub fn hears_landlock() -> bool {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let numbers = release.trim().split(['.', '-']).map_while(|number| number.parse().ok());
        numbers.collect::<Vec<u32>>() >= vec![6, 15]
    }

    /// Forgets what it has heard.
    pub fn forget(&self) {
        self.hear();
        self.heard.borrow_mut().clear();
    }

    /// Whether there was, or soon is, an event whose records have each of `parts` in them.
    pub fn says(&self, parts: &[&str]) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            self.hear();
            let heard = self.heard.borrow();
            let event = |record: &String| record.split_once(')').map(|(event, _)| event.to_owned());
            let has = |part: &str, of: &Option<String>| {
                heard.iter().any(|record| event(record) == *of && record.contains(part))
            };
            if heard.iter().map(event).any(|of| parts.iter().all(|part| has(part, &of))) {
                return true;
            }
            drop(heard);
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn hear(&self) {
        let mut message = [0; 16_384];
        loop {
            match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => {
                    let text = String::from_utf8_lossy(message.get(HEADER..len).unwrap_or_default());
                    self.heard.borrow_mut().push(text.into_owned());
                }
                Err(Errno::ENOBUFS) => eprintln!("records of the kernel's audit log were lost"),
                Err(_) => return,
            }
        }
    }
}

impl Drop for KernelAudit {
    fn drop(&mut self) {
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.count -= 1;
        if listeners.count == 0 && std::mem::take(&mut listeners.switched_on) {
            switch(false);
        }
    }
}

fn audit_socket() -> nix::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkAudit;
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
}

/// Whether the log is on; `None` if one may not know.
fn is_on() -> Option<bool> {
    let kernel = audit_socket().ok()?;
    let message = message(AUDIT_GET, NLM_F_REQUEST, &[]);
    sendto(kernel.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty()).ok()?;
    let began = Instant::now();
    let mut answer = [0; 256];
    while began.elapsed() < PATIENCE {
        let Ok(len) = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        match answer.get(..len)? {
            [_, _, _, _, low, high, rest @ ..] if u16::from_ne_bytes([*low, *high]) == AUDIT_GET => {
                // Behind the header: which words count, and then whether it is on.
                return Some(rest.get(HEADER - 6 + 4).copied()? != 0);
            }
            [_, _, _, _, low, high, rest @ ..] if u16::from_ne_bytes([*low, *high]) == NLMSG_ERROR => {
                rest.get(HEADER - 6..HEADER - 2).filter(|error| **error == [0; 4])?;
            }
            _ => return None,
        }
    }
    None
}

/// Switches the log on or off.
fn switch(on: bool) -> Option<()> {
    const AUDIT_STATUS_ENABLED: u32 = 1;
    let mut status = [0; STATUS_WORDS];
    status[..2].copy_from_slice(&[AUDIT_STATUS_ENABLED, u32::from(on)]);
    let message = message(AUDIT_SET, NLM_F_REQUEST, &status);
    let kernel = audit_socket().ok()?;
    sendto(kernel.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty()).ok().map(drop)
}

/// A message of netlink: length, kind, flags, number and sender, and what it says.
fn message(kind: u16, flags: u16, words: &[u32]) -> Vec<u8> {
    let len = u32::try_from(HEADER + size_of_val(words)).unwrap();
    let mut message = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]].concat();
    message.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    message
}
