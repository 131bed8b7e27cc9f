//! Remote rights, as verbs number them and as the policy names them.

use masq_policy::{RemoteAccess, RemoteRight};
use masq_spec::verbs::Access;

const RIGHTS: [(Access, RemoteRight); 3] = [
    (Access::REMOTE_READ, RemoteRight::Read),
    (Access::REMOTE_WRITE, RemoteRight::Write),
    (Access::REMOTE_ATOMIC, RemoteRight::Atomic),
];

/// The remote rights among access flags.
pub(crate) fn remote_of(access: Access) -> RemoteAccess {
    let granted = RIGHTS.iter().filter(|(bit, _)| access.contains(*bit));
    granted.map(|(_, right)| *right).collect()
}

/// Access flags without the remote rights that were not granted.
pub(crate) fn only_granted(access: Access, granted: RemoteAccess) -> Access {
    let refused = RIGHTS.iter().filter(|(_, right)| !granted.contains(*right));
    refused.fold(access, |access, (bit, _)| access - *bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_that_were_not_granted_are_taken_and_nothing_else() {
        let granted = RemoteAccess::from(RemoteRight::Read);
        let kept = only_granted(Access::all(), granted);
        assert_eq!(
            Access::all() - kept,
            Access::REMOTE_WRITE | Access::REMOTE_ATOMIC
        );
        assert_eq!(remote_of(kept), granted);
        assert_eq!(
            remote_of(Access::LOCAL_WRITE | Access::MW_BIND),
            RemoteAccess::NONE
        );
    }
}
