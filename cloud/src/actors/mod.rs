//! The actors: they translate, call and send; decisions are elsewhere.

pub mod archiver;
