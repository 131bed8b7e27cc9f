//! The control side of masqd: sessions, handles, policy and verbs.
