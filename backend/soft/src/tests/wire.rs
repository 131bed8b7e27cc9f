//! What only peers on other hosts have: packets that are nobody's, a network
//! that loses, hosts that vanish.
