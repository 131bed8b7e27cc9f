//! The rule book of RC, UC and UD, without I/O.
