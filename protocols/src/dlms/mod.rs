//! DLMS: the application layer of IEC 62056-5-3 and the data that it carries.
//!
//! [`client`] and [`server`] are the two sessions; both build on [`acse`] (the association), [`apdu`] (the services),
//! [`conformance`] (what was agreed) and [`security`] (how APDUs are protected). What a service carries is read with
//! [`axdr`], [`data`] and [`datetime`].

pub mod acse;
pub mod apdu;
pub mod axdr;
pub mod client;
pub mod conformance;
pub mod data;
pub mod datetime;
pub mod notification;
pub mod security;
pub mod server;
pub mod value;

#[cfg(test)]
mod ciphered_tests;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod session_tests;
