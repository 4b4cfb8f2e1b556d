//! Every return value of PKCS#11, and what it takes to work again after it (PKCS #11 v3.1, 5.1).

use cryptoki::error::{Error as Pkcs11Error, RvError};

/// What a failed call asks for. Where the mend of one class does not help, that of the next is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Nothing: this one call was not acceptable, and would not be on another session either.
    Request,
    /// A fresh session.
    Session,
    /// A new login, on new sessions.
    Login,
    /// Keys looked up anew, because handles mean nothing any more.
    Keys,
    /// `C_Finalize` and `C_Initialize`, and everything that follows.
    Module,
    /// An operator: tokens lock themselves when a PIN that was refused is tried again.
    Fatal,
}

/// `CKR_AEAD_DECRYPT_FAILED` (PKCS #11 v3.0, 5.1.6), which the `cryptoki` crate has no name for.
const AEAD_DECRYPT_FAILED: u64 = 0x35;

impl Class {
    /// Every class.
    pub(super) const ALL: [Self; 6] =
        [Self::Request, Self::Session, Self::Login, Self::Keys, Self::Module, Self::Fatal];

    /// Its name in counts.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Session => "session",
            Self::Login => "login",
            Self::Keys => "keys",
            Self::Module => "module",
            Self::Fatal => "fatal",
        }
    }

    /// The class of a failed call.
    pub(super) fn of(error: &Pkcs11Error) -> Self {
        match error {
            Pkcs11Error::Pkcs11(value, _) => Self::of_value(*value),
            // The module left out a function, or gave out what is no PKCS#11.
            Pkcs11Error::LibraryLoading(_)
            | Pkcs11Error::NotSupported
            | Pkcs11Error::TryFromInt(_)
            | Pkcs11Error::TryFromSlice(_)
            | Pkcs11Error::ParseInt(_)
            | Pkcs11Error::Utf8(_)
            | Pkcs11Error::NulError(_)
            | Pkcs11Error::NullFunctionPointer
            | Pkcs11Error::PinNotSet
            | Pkcs11Error::MissingSymbol(_)
            | Pkcs11Error::InvalidValue => Self::Module,
        }
    }

    /// The class of a return value. No value is left to a default: a new one of the crate must be decided upon here.
    fn of_value(value: RvError) -> Self {
        match value {
            // The session is gone, or in the middle of something that another call has left behind.
            RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::SessionReadOnly
            | RvError::SessionParallelNotSupported
            | RvError::OperationActive
            | RvError::OperationNotInitialized
            | RvError::BufferTooSmall
            | RvError::Cancel
            | RvError::FunctionCanceled
            | RvError::FunctionNotParallel
            | RvError::FunctionRejected
            | RvError::SavedStateInvalid
            | RvError::StateUnsaveable => Self::Session,

            // The token has forgotten who we are.
            RvError::UserNotLoggedIn
            | RvError::UserAlreadyLoggedIn
            | RvError::UserAnotherAlreadyLoggedIn
            | RvError::UserTooManyTypes
            | RvError::UserTypeInvalid
            | RvError::SessionExists
            | RvError::SessionReadOnlyExists
            | RvError::SessionReadWriteSoExists => Self::Login,

            // The handle is unknown, or is another object's by now.
            RvError::KeyHandleInvalid
            | RvError::ObjectHandleInvalid
            | RvError::KeyChanged
            | RvError::KeyNeeded
            | RvError::KeyNotNeeded
            | RvError::KeySizeRange
            | RvError::KeyTypeInconsistent
            | RvError::KeyFunctionNotPermitted
            | RvError::KeyIndigestible
            | RvError::KeyNotWrappable
            | RvError::KeyUnextractable
            | RvError::PublicKeyInvalid
            | RvError::UnwrappingKeyHandleInvalid
            | RvError::UnwrappingKeySizeRange
            | RvError::UnwrappingKeyTypeInconsistent
            | RvError::WrappingKeyHandleInvalid
            | RvError::WrappingKeySizeRange
            | RvError::WrappingKeyTypeInconsistent => Self::Keys,

            // Device, driver or library; also what has no meaning to us, since the vendor's may be any.
            RvError::GeneralError
            | RvError::FunctionFailed
            | RvError::HostMemory
            | RvError::SlotIdInvalid
            | RvError::NoEvent
            | RvError::NeedToCreateThreads
            | RvError::CantLock
            | RvError::MutexBad
            | RvError::MutexNotLocked
            | RvError::DeviceError
            | RvError::DeviceMemory
            | RvError::DeviceRemoved
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SessionCount
            | RvError::CryptokiNotInitialized
            | RvError::CryptokiAlreadyInitialized
            | RvError::LibraryLoadFailed
            | RvError::FipsSelfTestFailed
            | RvError::RandomNoRng
            | RvError::VendorDefined(_) => Self::Module,
            RvError::UnknownErrorCode(value) if value != AEAD_DECRYPT_FAILED => Self::Module,

            // What was asked for cannot be had.
            RvError::UnknownErrorCode(_)
            | RvError::ArgumentsBad
            | RvError::ActionProhibited
            | RvError::AttributeReadOnly
            | RvError::AttributeSensitive
            | RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::CurveNotSupported
            | RvError::DataInvalid
            | RvError::DataLenRange
            | RvError::DomainParamsInvalid
            | RvError::EncryptedDataInvalid
            | RvError::EncryptedDataLenRange
            | RvError::ExceededMaxIterations
            | RvError::FunctionNotSupported
            | RvError::InformationSensitive
            | RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::RandomSeedNotSupported
            | RvError::SignatureInvalid
            | RvError::SignatureLenRange
            | RvError::TemplateIncomplete
            | RvError::TemplateInconsistent
            | RvError::TokenWriteProtected
            | RvError::WrappedKeyInvalid
            | RvError::WrappedKeyLenRange => Self::Request,

            RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
            | RvError::PinTooWeak
            | RvError::UserPinNotInitialized
            | RvError::NewPinMode
            | RvError::NextOtp => Self::Fatal,
        }
    }

    /// Whether a module may mean by this that a tag does not fit: the standard has a value for it, but some modules
    /// say no more than that something failed.
    pub(super) fn may_be_a_tag(self) -> bool {
        matches!(self, Self::Request | Self::Module)
    }
}

/// A failed call in the words of the standard, as in `C_Sign: CKR_DEVICE_ERROR`.
pub(super) fn told(error: &Pkcs11Error) -> String {
    match error {
        Pkcs11Error::Pkcs11(value, function) => format!("C_{function:?}: {}", name(*value)),
        other => other.to_string(),
    }
}

/// The name of a return value: that of the crate's variant, written as the standard does.
pub(super) fn name(value: RvError) -> String {
    match value {
        RvError::VendorDefined(value) => format!("CKR_VENDOR_DEFINED {value:#x}"),
        RvError::UnknownErrorCode(value) => format!("CKR {value:#x}"),
        known => format!("{known:?}").chars().fold("CKR".to_owned(), |mut name, letter| {
            if letter.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
            name
        }),
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    fn class(value: RvError) -> Class {
        Class::of(&Pkcs11Error::Pkcs11(value, Function::Sign))
    }

    #[test]
    fn values_ask_for_the_mend_that_helps() {
        for (value, wanted) in [
            (RvError::SessionHandleInvalid, Class::Session),
            (RvError::OperationActive, Class::Session),
            (RvError::UserNotLoggedIn, Class::Login),
            (RvError::KeyHandleInvalid, Class::Keys),
            (RvError::DeviceRemoved, Class::Module),
            (RvError::CryptokiNotInitialized, Class::Module),
            (RvError::VendorDefined(0x8000_0001), Class::Module),
            (RvError::UnknownErrorCode(0x777), Class::Module),
            (RvError::UnknownErrorCode(AEAD_DECRYPT_FAILED), Class::Request),
            (RvError::DataLenRange, Class::Request),
            (RvError::PinLocked, Class::Fatal),
        ] {
            assert_eq!(class(value), wanted, "{value:?}");
        }
    }

    #[test]
    fn errors_are_told_in_the_words_of_the_standard() {
        for (value, wanted) in [
            (RvError::DeviceError, "C_Sign: CKR_DEVICE_ERROR"),
            (RvError::SlotIdInvalid, "C_Sign: CKR_SLOT_ID_INVALID"),
            (RvError::VendorDefined(0x8000_0001), "C_Sign: CKR_VENDOR_DEFINED 0x80000001"),
            (RvError::UnknownErrorCode(0x777), "C_Sign: CKR 0x777"),
        ] {
            assert_eq!(told(&Pkcs11Error::Pkcs11(value, Function::Sign)), wanted);
        }
    }

    #[test]
    fn only_what_can_be_a_records_fault_is_taken_for_one() {
        // SoftHSM2 says "general error" for a tag that does not fit.
        for value in [RvError::EncryptedDataInvalid, RvError::SignatureInvalid, RvError::GeneralError] {
            assert!(class(value).may_be_a_tag(), "{value:?}");
        }
        for value in [RvError::SessionClosed, RvError::UserNotLoggedIn, RvError::KeyHandleInvalid] {
            assert!(!class(value).may_be_a_tag(), "{value:?}");
        }
    }
}
