//! DLMS: the application layer of IEC 62056-5-3 and the data that it carries.
//!
//! [`client`] and [`server`] are the two sessions; both build on [`acse`] (the association), [`apdu`] (the services),
//! [`conformance`] (what was agreed), [`short_names`] (how older meters name their objects), [`block_transfer`] (APDUs in pieces)
//! and [`security`] (how APDUs are protected). What a service carries is read with [`axdr`], [`data`] and [`datetime`].
//!
//! | service | client | server |
//! | --- | --- | --- |
//! | GET: normal, next, with-list | [`client::ClientSession::get`], `get_list` | [`server::ObjectServer::read`] |
//! | SET: normal, with-list, each in blocks | `set`, `set_list` | [`server::ObjectServer::write`] |
//! | ACTION: normal, with-list, blocks both ways | `invoke`, `invoke_list` | [`server::ObjectServer::invoke`] |
//! | General-Block-Transfer | [`client::ClientConfig::block_window`] | [`server::ServerConfig::block_window`] |
//! | General-Block-Transfer of pushes | [`block_transfer::BlockAssembler`], of many senders [`push_blocks::PushBlocks`] | |
//! | ACCESS | `access` | the three of [`server::ObjectServer`] |
//! | Read, Write | the same, with [`client::ClientConfig::referencing`] | the same, with [`server::ServerConfig::referencing`] |
//! | UnconfirmedWrite, unconfirmed SET and ACTION | `set_unconfirmed`, `invoke_unconfirmed` | the last two |
//! | DataNotification, EventNotification, InformationReport | [`client::ClientEvent::Notification`] | [`server::ServerConnection::notify`] |
//! | what they hold, and the confirmation of DataNotification | [`notification`] | [`notification`] |
//!
//! A service is used where both sides propose it ([`client::ClientConfig::proposed`], [`server::ServerConfig::conformance`]).

pub mod acse;
pub mod apdu;
pub mod axdr;
pub mod block_transfer;
pub mod client;
pub mod conformance;
pub mod data;
pub mod datetime;
pub mod notification;
pub mod push_blocks;
pub mod security;
pub mod server;
pub mod short_names;
pub mod value;

#[cfg(test)]
mod access_tests;
#[cfg(test)]
mod block_tests;
#[cfg(test)]
mod ciphered_tests;
#[cfg(test)]
mod command_tests;
#[cfg(test)]
mod general_protection_tests;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod short_name_tests;
#[cfg(test)]
mod unconfirmed_tests;
