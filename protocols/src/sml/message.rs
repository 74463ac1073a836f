//! Messages: what an SML file is a sequence of (SML 1.04, 4.1 and 5.1).
//!
//! ```text
//! transactionId | groupNo | abortOnError | messageBody: choice and body | crc16 | end of message: 00
//! ```
//!
//! A meter that pushes sends SML_PublicOpen.Res, SML_GetList.Res and SML_PublicClose.Res. What others there are is told by its
//! choice and stepped over.

use super::crc::CrcVerdict;
use super::element::{self, END_OF_MESSAGE, ElementError};
use super::list::GetListResponse;
use super::quirks::Quirks;
use super::time::SmlTime;
use crate::bytes::Reader;

/// Choices of the message body.
pub mod tag {
    pub const PUBLIC_OPEN_RESPONSE: u32 = 0x0101;
    pub const PUBLIC_CLOSE_RESPONSE: u32 = 0x0201;
    pub const GET_PROFILE_PACK_RESPONSE: u32 = 0x0301;
    pub const GET_PROFILE_LIST_RESPONSE: u32 = 0x0401;
    pub const GET_PROC_PARAMETER_RESPONSE: u32 = 0x0501;
    pub const GET_LIST_RESPONSE: u32 = 0x0701;
    pub const ATTENTION_RESPONSE: u32 = 0xff01;
}

/// The name of a message by the choice of its body.
pub const fn message_name(choice: u32) -> &'static str {
    match choice {
        0x0100 => "PublicOpen.Req",
        tag::PUBLIC_OPEN_RESPONSE => "PublicOpen.Res",
        0x0200 => "PublicClose.Req",
        tag::PUBLIC_CLOSE_RESPONSE => "PublicClose.Res",
        0x0300 => "GetProfilePack.Req",
        tag::GET_PROFILE_PACK_RESPONSE => "GetProfilePack.Res",
        0x0400 => "GetProfileList.Req",
        tag::GET_PROFILE_LIST_RESPONSE => "GetProfileList.Res",
        0x0500 => "GetProcParameter.Req",
        tag::GET_PROC_PARAMETER_RESPONSE => "GetProcParameter.Res",
        0x0600 => "SetProcParameter.Req",
        0x0700 => "GetList.Req",
        tag::GET_LIST_RESPONSE => "GetList.Res",
        tag::ATTENTION_RESPONSE => "Attention.Res",
        _ => "unknown",
    }
}

/// A message as it stands.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub transaction_id: &'a [u8],
    pub group_no: u8,
    pub abort_on_error: u8,
    pub body: Body<'a>,
    /// Of this message; the file has one of its own.
    pub crc: CrcVerdict,
}

#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    Open(OpenResponse<'a>),
    Close(CloseResponse<'a>),
    GetList(GetListResponse<'a>),
    /// Stepped over; [`message_name`] tells what it is.
    Other {
        choice: u32,
    },
}

/// SML_PublicOpen.Res.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenResponse<'a> {
    pub codepage: Option<&'a [u8]>,
    pub client_id: Option<&'a [u8]>,
    pub req_file_id: &'a [u8],
    pub server_id: &'a [u8],
    pub ref_time: Option<SmlTime>,
    /// 1 when absent; says nothing about the draft of the standard.
    pub sml_version: Option<u8>,
}

/// SML_PublicClose.Res.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseResponse<'a> {
    pub global_signature: Option<&'a [u8]>,
}

/// Iterates over the messages of a file's content. After one that is broken it goes on where that one ends, if that can be
/// told.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    reader: Reader<'a>,
    quirks: Quirks,
}

impl<'a> Messages<'a> {
    /// `content`: see [`SmlFile::content`](super::SmlFile::content).
    pub fn new(content: &'a [u8], quirks: Quirks) -> Self {
        Self { reader: Reader::new(content), quirks }
    }

    fn end(&mut self) {
        self.reader = Reader::new(&[]);
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, ElementError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Fill that a maker did not count.
        while self.reader.peek() == Some(END_OF_MESSAGE) {
            self.reader.u8().ok()?;
        }
        if self.reader.is_empty() {
            return None;
        }
        let mut start = self.reader;
        let message = Message::read(&mut self.reader, self.quirks);
        if message.is_err() {
            match element::skip(&mut start) {
                Ok(()) => self.reader = start,
                Err(_) => self.end(),
            }
        }
        Some(message)
    }
}

impl<'a> Message<'a> {
    fn read(reader: &mut Reader<'a>, quirks: Quirks) -> Result<Self, ElementError> {
        let start = *reader;
        element::list_of(reader, 6)?;
        let transaction_id = element::octets(reader)?;
        let group_no = element::unsigned8(reader)?;
        let abort_on_error = element::unsigned8(reader)?;
        let body = Body::read(reader, quirks)?;
        let octets = start.rest().get(..reader.offset() - start.offset()).unwrap_or_default();
        let stated = element::unsigned(reader, 2)? as u16;
        let offset = reader.offset();
        if reader.u8()? != END_OF_MESSAGE {
            return Err(ElementError::End { offset });
        }
        Ok(Self { transaction_id, group_no, abort_on_error, body, crc: CrcVerdict::of(octets, stated) })
    }
}

impl<'a> Body<'a> {
    fn read(reader: &mut Reader<'a>, quirks: Quirks) -> Result<Self, ElementError> {
        element::list_of(reader, 2)?;
        match element::unsigned(reader, 4)? as u32 {
            tag::PUBLIC_OPEN_RESPONSE => OpenResponse::read(reader, quirks).map(Self::Open),
            tag::PUBLIC_CLOSE_RESPONSE => CloseResponse::read(reader).map(Self::Close),
            tag::GET_LIST_RESPONSE => GetListResponse::read(reader, quirks).map(Self::GetList),
            choice => element::skip(reader).map(|()| Self::Other { choice }),
        }
    }
}

impl<'a> OpenResponse<'a> {
    fn read(reader: &mut Reader<'a>, quirks: Quirks) -> Result<Self, ElementError> {
        element::list_of(reader, 6)?;
        Ok(Self {
            codepage: element::optional_octets(reader)?,
            client_id: element::optional_octets(reader)?,
            req_file_id: element::octets(reader)?,
            server_id: element::octets(reader)?,
            ref_time: SmlTime::read_optional(reader, quirks)?,
            sml_version: if element::take_absent(reader) { None } else { Some(element::unsigned8(reader)?) },
        })
    }
}

impl<'a> CloseResponse<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ElementError> {
        element::list_of(reader, 1)?;
        Ok(Self { global_signature: element::optional_octets(reader)? })
    }
}
