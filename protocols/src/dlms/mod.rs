//! DLMS: the application layer of IEC 62056-5-3 and the data that it carries.

pub mod axdr;
pub mod data;
pub mod datetime;
pub mod notification;
pub mod value;
