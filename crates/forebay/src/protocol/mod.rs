//! Protocols: the wire on one side, an exchange on the other. Nothing behind them knows which it was.

pub mod fastcgi;
pub mod h1;
