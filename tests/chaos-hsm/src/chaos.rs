//! What happens in a call: the faults that are due, then the real module.

use std::{
    ptr,
    sync::{OnceLock, PoisonError, RwLock},
    thread::sleep,
    time::{Duration, Instant},
};

use cryptoki_sys::{
    CK_BYTE_PTR, CK_FUNCTION_LIST, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE_PTR, CK_RV, CK_SESSION_HANDLE, CK_TRUE,
    CK_ULONG, CK_ULONG_PTR, CKR_BUFFER_TOO_SMALL, CKR_OK,
};

use crate::{
    forward,
    handles::Handles,
    rule::{Fault, Function, Order},
    say,
    watch::Watch,
};

/// The real module, and the list that is given out in its place.
#[derive(Debug)]
pub(crate) struct Chaos {
    real: CK_FUNCTION_LIST,
    ours: CK_FUNCTION_LIST,
    watch: Watch,
    handles: Handles,
    /// Read by every call into the real module, written by what takes sessions away under the others: modules are not
    /// made for that, and some crash.
    calls: RwLock<()>,
}

/// One call, as far as faults need to know it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) function: &'static Function,
    pub(crate) session: Option<CK_SESSION_HANDLE>,
    pub(crate) output: Option<Output>,
}

/// Where a call writes bytes, and how many: the caller's room at first, then what was used of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) bytes: CK_BYTE_PTR,
    pub(crate) length: CK_ULONG_PTR,
}

static CHAOS: OnceLock<Option<Chaos>> = OnceLock::new();

/// The module, loaded if this is the first call.
pub(crate) fn get_or_load() -> Option<&'static Chaos> {
    let load = || Chaos::load().inspect_err(|reason| say(reason)).ok();
    CHAOS.get_or_init(load).as_ref()
}

/// The module, if it is loaded.
pub(crate) fn get() -> Option<&'static Chaos> {
    CHAOS.get().and_then(Option::as_ref)
}

impl Chaos {
    fn load() -> Result<Self, String> {
        let real = real_hsm::load_from("CHAOS_HSM_MODULE")?;
        let fault = std::env::var_os("CHAOS_HSM_FAULT");
        let fault = fault.ok_or("the environment variable CHAOS_HSM_FAULT is not set")?;
        let (watch, handles, calls) = (Watch::new(fault.into()), Handles::default(), RwLock::new(()));
        Ok(Self { real, ours: forward::list(real.version), watch, handles, calls })
    }

    /// The list that is given out.
    pub(crate) fn list(&self) -> &CK_FUNCTION_LIST {
        &self.ours
    }

    /// The real module's functions.
    pub(crate) fn real(&self) -> &CK_FUNCTION_LIST {
        &self.real
    }

    /// The object handles the caller knows.
    pub(crate) fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Carries out the faults that are due for `call`, and `forward` unless one of them is an error.
    ///
    /// # Safety
    /// The output of `call` must be as the standard wants it.
    pub(crate) unsafe fn call(&self, call: &Call, forward: impl Fn() -> CK_RV) -> CK_RV {
        let forward = || {
            let waits = call.function.name == "C_WaitForSlotEvent";
            let _calm = (!waits).then(|| self.calls.read().unwrap_or_else(PoisonError::into_inner));
            forward()
        };
        if let Some(output) = call.output.filter(|output| output.bytes.is_null()) {
            let rv = forward();
            if rv == CKR_OK {
                // SAFETY: the caller's promise.
                unsafe { output.announce_more(self.watch.last().growth(call.function)) };
            }
            return rv;
        }
        // What ends an operation follows its beginning, which has just looked at the file.
        let ends = ENDING.contains(&call.function.name);
        let script = if ends { self.watch.last() } else { self.watch.script() };
        let mut longer = 0_isize;
        for rule in &script.rules {
            let Some(number) = rule.strikes(call.function) else { continue };
            match rule.order.fault {
                Fault::Error(error) => {
                    if error != CKR_BUFFER_TOO_SMALL && ends {
                        forward();
                        // SAFETY: the caller's promise.
                        call.output.into_iter().for_each(|output| unsafe { output.wipe() });
                    }
                    return error;
                }
                Fault::Latency(least, most) => sleep(rule.time_between(least, most, number)),
                Fault::Hang(limit) => self.hang(&rule.order, limit),
                Fault::LoseSessions => self.close_all_sessions(),
                Fault::LoseSession => self.close(call.session),
                Fault::LoseLogin => self.log_out(call.session),
                Fault::StaleHandles => self.handles.forget(),
                Fault::WrongLength(by) => longer = longer.saturating_add(by),
            }
        }
        // SAFETY: the caller's promise.
        let room = call.output.map_or(0, |output| unsafe { output.length() });
        let rv = forward();
        if rv == CKR_OK {
            // SAFETY: the caller's promise.
            call.output.into_iter().for_each(|output| unsafe { output.lengthen(longer, room) });
        }
        if rv == CKR_OK && call.function.name == "C_Finalize" {
            self.handles.forget();
        }
        rv
    }

    /// Puts our handles into the place of the `count` real ones at `handles`.
    ///
    /// # Safety
    /// If it is not null, `handles` must point to as many.
    pub(crate) unsafe fn renumber(&self, handles: CK_OBJECT_HANDLE_PTR, count: CK_ULONG) {
        let Ok(count) = usize::try_from(count) else { return };
        if handles.is_null() || count == 0 {
            return;
        }
        // SAFETY: the caller's promise.
        let handles: &mut [CK_OBJECT_HANDLE] = unsafe { std::slice::from_raw_parts_mut(handles, count) };
        for handle in handles {
            *handle = self.handles.give(*handle);
        }
    }

    fn hang(&self, order: &Order, limit: Option<Duration>) {
        let begin = Instant::now();
        while limit.is_none_or(|limit| begin.elapsed() < limit) && self.watch.script().holds(order) {
            sleep(POLL);
        }
    }

    fn close_all_sessions(&self) {
        let _alone = self.calls.write().unwrap_or_else(PoisonError::into_inner);
        let (Some(list), Some(close)) = (self.real.C_GetSlotList, self.real.C_CloseAllSessions) else {
            return;
        };
        let mut slots = [0; MAX_SLOTS];
        let mut count = CK_ULONG::try_from(slots.len()).unwrap_or_default();
        // SAFETY: there is room for as many slots as `count` says.
        let rv = unsafe { list(CK_TRUE, slots.as_mut_ptr(), &raw mut count) };
        if rv != CKR_OK {
            say(format_args!("lose-sessions: C_GetSlotList returned {rv:#x}"));
            return;
        }
        for slot in slots.into_iter().take(usize::try_from(count).unwrap_or_default()) {
            // SAFETY: no other thread is inside the module.
            unsafe { close(slot) };
        }
    }

    fn close(&self, session: Option<CK_SESSION_HANDLE>) {
        let _alone = self.calls.write().unwrap_or_else(PoisonError::into_inner);
        if let (Some(session), Some(close)) = (session, self.real.C_CloseSession) {
            // SAFETY: no other thread is inside the module.
            unsafe { close(session) };
        }
    }

    fn log_out(&self, session: Option<CK_SESSION_HANDLE>) {
        let _alone = self.calls.write().unwrap_or_else(PoisonError::into_inner);
        if let (Some(session), Some(log_out)) = (session, self.real.C_Logout) {
            // SAFETY: no other thread is inside the module.
            unsafe { log_out(session) };
        }
    }
}

impl Output {
    /// # Safety
    /// `length` must be null or point to a number; so in each of these.
    unsafe fn length(self) -> CK_ULONG {
        // SAFETY: the caller's promise.
        unsafe { self.length.as_ref() }.copied().unwrap_or_default()
    }

    unsafe fn announce_more(self, more: usize) {
        // SAFETY: the caller's promise.
        if let (Some(length), Ok(more)) = (unsafe { self.length.as_mut() }, CK_ULONG::try_from(more)) {
            *length = length.saturating_add(more);
        }
    }

    /// Makes the output `by` bytes longer if there is `room` for them, or as much shorter.
    unsafe fn lengthen(self, by: isize, room: CK_ULONG) {
        // SAFETY: the caller's promise.
        let Some(length) = (unsafe { self.length.as_mut() }) else { return };
        let Ok(amount) = CK_ULONG::try_from(by.unsigned_abs()) else { return };
        if by < 0 {
            *length = length.saturating_sub(amount);
        } else if let Some(longer) = length.checked_add(amount).filter(|longer| *longer <= room) {
            if let (Ok(end), Ok(more)) = (usize::try_from(*length), usize::try_from(amount)) {
                // SAFETY: all of it is in the room the caller has.
                unsafe { ptr::write_bytes(self.bytes.add(end), 0, more) };
            }
            *length = longer;
        }
    }

    /// Nobody shall find a right answer behind an error.
    ///
    /// # Safety
    /// As above, and the bytes that `length` counts must be there.
    unsafe fn wipe(self) {
        // SAFETY: the caller's promise.
        if let Ok(length) = usize::try_from(unsafe { self.length() }) {
            // SAFETY: as above.
            unsafe { ptr::write_bytes(self.bytes, 0, length) };
        }
    }
}

/// The functions whose failure ends the operation they belong to (PKCS #11 v2.40, 5.8 to 5.13).
const ENDING: [&str; 12] = [
    "C_Encrypt",
    "C_EncryptFinal",
    "C_Decrypt",
    "C_DecryptFinal",
    "C_Digest",
    "C_DigestFinal",
    "C_Sign",
    "C_SignFinal",
    "C_SignRecover",
    "C_Verify",
    "C_VerifyFinal",
    "C_VerifyRecover",
];
/// How often a call that hangs looks whether it still has to.
const POLL: Duration = Duration::from_millis(2);
/// More slots than any module has with a token in them.
const MAX_SLOTS: usize = 256;
