//! Who calls, and what they may do.
//!
//! The door is [`Authenticator::identify`]: a bearer JWT and the kernel's word about the peer go in, a [`Caller`]
//! comes out. RS256 and nothing else (RFC 8725); keys come from configured issuers only, never from a JWT.

mod approval;
mod authenticator;
mod caller;
mod error;
mod issuer;
mod jwt;
mod login;
mod replay;

pub use approval::{APPROVABLE, ApprovalError, ApprovalRules, Approver, approval_digest, is_approval_digest};
pub use authenticator::{Authenticator, Settings, Watch};
pub use caller::{Caller, Peer, ScopeSet};
pub use error::{AuthError, Stranger};
pub use issuer::{Issuer, IssuerKeys, Issuers, is_tenant_name};
pub use jwt::Claims;
pub use login::{Login, LoginError, LoginGrant, LoginWish, PeerRule};
