//! Class 18, Image transfer (IEC 62056-6-2; Blue Book part 2, 4.4.6): new firmware for a meter, block by block. [`upload`] brings it there.

pub mod upload;

use super::{
    AttributeError, InterfaceClass, LOGICAL_NAME, boolean, enumerated, integer, list, mismatch, obis, octets, structure,
};
use crate::dlms::data::Data;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const IMAGE_BLOCK_SIZE: i8 = 2;
pub const IMAGE_TRANSFERRED_BLOCKS_STATUS: i8 = 3;
pub const IMAGE_FIRST_NOT_TRANSFERRED_BLOCK_NUMBER: i8 = 4;
pub const IMAGE_TRANSFER_ENABLED: i8 = 5;
pub const IMAGE_TRANSFER_STATUS: i8 = 6;
pub const IMAGE_TO_ACTIVATE_INFO: i8 = 7;

/// Methods. The first takes an [`ImageId`], the second a [`Block`], the others an integer, 0.
pub const IMAGE_TRANSFER_INITIATE: i8 = 1;
pub const IMAGE_BLOCK_TRANSFER: i8 = 2;
pub const IMAGE_VERIFY: i8 = 3;
pub const IMAGE_ACTIVATE: i8 = 4;

/// Class 18.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTransfer {
    pub logical_name: ObisCode,
    /// Of every block but the last.
    pub block_size: u32,
    /// One bit a block, block 0 first.
    pub transferred_blocks: Vec<bool>,
    /// The number of blocks when all are there.
    pub first_not_transferred_block: u32,
    pub enabled: bool,
    pub status: TransferStatus,
    pub to_activate: Vec<ImageToActivate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TransferStatus {
    NotInitiated = 0,
    Initiated = 1,
    VerificationInitiated = 2,
    VerificationSuccessful = 3,
    VerificationFailed = 4,
    ActivationInitiated = 5,
    ActivationSuccessful = 6,
    ActivationFailed = 7,
}

/// An image as it is announced.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageId {
    pub identifier: Vec<u8>,
    pub size: u32,
}

/// An image that is verified and waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageToActivate {
    pub id: ImageId,
    pub signature: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// From 0 on.
    pub number: u32,
    pub octets: Vec<u8>,
}

impl TransferStatus {
    pub const ALL: [Self; 8] = [
        Self::NotInitiated,
        Self::Initiated,
        Self::VerificationInitiated,
        Self::VerificationSuccessful,
        Self::VerificationFailed,
        Self::ActivationInitiated,
        Self::ActivationSuccessful,
        Self::ActivationFailed,
    ];

    pub fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let octet = enumerated("image_transfer_status", data)?;
        Self::ALL.get(usize::from(octet)).copied().ok_or(mismatch("image_transfer_status", data))
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::NotInitiated => "no transfer initiated",
            Self::Initiated => "transfer initiated",
            Self::VerificationInitiated => "verification initiated",
            Self::VerificationSuccessful => "verification successful",
            Self::VerificationFailed => "verification failed",
            Self::ActivationInitiated => "activation initiated",
            Self::ActivationSuccessful => "activation successful",
            Self::ActivationFailed => "activation failed",
        }
    }
}

/// Text where the identifier is one, else hexadecimal digits.
impl std::fmt::Display for ImageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_text = |octet: &u8| octet.is_ascii_graphic() || *octet == b' ';
        if self.identifier.iter().all(is_text) {
            f.write_str(&String::from_utf8_lossy(&self.identifier))?;
        } else {
            self.identifier.iter().try_for_each(|octet| write!(f, "{octet:02x}"))?;
        }
        write!(f, ", {} octets", self.size)
    }
}

impl ImageId {
    /// The parameter of [`IMAGE_TRANSFER_INITIATE`].
    pub fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [identifier, size] = structure("image_transfer_initiate", data)?;
        Ok(Self { identifier: octets("image_identifier", &identifier)?, size: integer("image_size", &size)? })
    }

    pub fn encode(&self) -> DataValue {
        let identifier = DataValue::OctetString(self.identifier.clone());
        DataValue::Structure(vec![identifier, DataValue::DoubleLongUnsigned(self.size)])
    }
}

impl ImageToActivate {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [size, identifier, signature] = structure("image_to_activate_info_element", data)?;
        Ok(Self {
            id: ImageId {
                identifier: octets("image_to_activate_identification", &identifier)?,
                size: integer("image_to_activate_size", &size)?,
            },
            signature: octets("image_to_activate_signature", &signature)?,
        })
    }

    fn encode(&self) -> DataValue {
        DataValue::Structure(vec![
            DataValue::DoubleLongUnsigned(self.id.size),
            DataValue::OctetString(self.id.identifier.clone()),
            DataValue::OctetString(self.signature.clone()),
        ])
    }

    /// Attribute 7.
    pub fn decode_list(data: &Data<'_>) -> Result<Vec<Self>, AttributeError> {
        list("image_to_activate_info", data, Self::decode)
    }
}

impl Block {
    /// The parameter of [`IMAGE_BLOCK_TRANSFER`].
    pub fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [number, value] = structure("image_block_transfer", data)?;
        Ok(Self { number: integer("image_block_number", &number)?, octets: octets("image_block_value", &value)? })
    }

    pub fn encode(self) -> DataValue {
        DataValue::Structure(vec![DataValue::DoubleLongUnsigned(self.number), DataValue::OctetString(self.octets)])
    }
}

/// Attribute 3.
pub fn decode_blocks(data: &Data<'_>) -> Result<Vec<bool>, AttributeError> {
    match data {
        Data::BitString(bits) => Ok((0..bits.bits).map(|bit| bits.bit(bit) == Some(true)).collect()),
        _ => Err(mismatch("image_transferred_blocks_status", data)),
    }
}

fn encode_blocks(blocks: &[bool]) -> DataValue {
    let octet =
        |bits: &[bool]| (0..).zip(bits).fold(0, |octet, (place, &is_set)| octet | u8::from(is_set) << (7 - place));
    DataValue::BitString { bits: blocks.len(), octets: blocks.chunks(8).map(octet).collect() }
}

impl ImageTransfer {
    /// The logical name that nearly every meter gives its only image transfer.
    pub const LOGICAL_NAME: ObisCode = ObisCode::new(0, 0, 44, 0, 0, 255);

    pub const fn new(logical_name: ObisCode) -> Self {
        Self {
            logical_name,
            block_size: 0,
            transferred_blocks: Vec::new(),
            first_not_transferred_block: 0,
            enabled: false,
            status: TransferStatus::NotInitiated,
            to_activate: Vec::new(),
        }
    }
}

impl InterfaceClass for ImageTransfer {
    const CLASS_ID: u16 = 18;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            IMAGE_BLOCK_SIZE => Some(DataValue::DoubleLongUnsigned(self.block_size)),
            IMAGE_TRANSFERRED_BLOCKS_STATUS => Some(encode_blocks(&self.transferred_blocks)),
            IMAGE_FIRST_NOT_TRANSFERRED_BLOCK_NUMBER => {
                Some(DataValue::DoubleLongUnsigned(self.first_not_transferred_block))
            }
            IMAGE_TRANSFER_ENABLED => Some(DataValue::Boolean(self.enabled)),
            IMAGE_TRANSFER_STATUS => Some(DataValue::Enum(self.status as u8)),
            IMAGE_TO_ACTIVATE_INFO => {
                Some(DataValue::Array(self.to_activate.iter().map(ImageToActivate::encode).collect()))
            }
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            IMAGE_BLOCK_SIZE => self.block_size = integer("image_block_size", data)?,
            IMAGE_TRANSFERRED_BLOCKS_STATUS => self.transferred_blocks = decode_blocks(data)?,
            IMAGE_FIRST_NOT_TRANSFERRED_BLOCK_NUMBER => {
                self.first_not_transferred_block = integer("image_first_not_transferred_block_number", data)?;
            }
            IMAGE_TRANSFER_ENABLED => self.enabled = boolean("image_transfer_enabled", data)?,
            IMAGE_TRANSFER_STATUS => self.status = TransferStatus::decode(data)?,
            IMAGE_TO_ACTIVATE_INFO => self.to_activate = ImageToActivate::decode_list(data)?,
            _ => return Err(AttributeError::Unknown { class_id: Self::CLASS_ID, index }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::testing::round_trips;

    #[test]
    fn image_transfers_round_trip() {
        let id = ImageId { identifier: b"FW 1.2".to_vec(), size: 1_000 };
        for status in TransferStatus::ALL {
            let object = ImageTransfer {
                logical_name: ImageTransfer::LOGICAL_NAME,
                block_size: 100,
                transferred_blocks: [true, false, true, true, false, false, false, false, true, true].into(),
                first_not_transferred_block: 1,
                enabled: true,
                status,
                to_activate: vec![ImageToActivate { id: id.clone(), signature: vec![1, 2] }],
            };
            round_trips(&object, ImageTransfer::new(ObisCode([0; 6])), &[1, 2, 3, 4, 5, 6, 7]);
        }
        let octets = DataValue::Enum(8).to_vec();
        assert!(TransferStatus::decode(&Data::from_bytes(&octets).unwrap()).is_err());
    }

    #[test]
    fn block_0_is_the_most_significant_bit_of_the_first_octet() {
        let blocks = [true, false, false, false, false, false, false, true, true];
        assert_eq!(encode_blocks(&blocks).to_vec(), [4, 9, 0x81, 0x80]);
        assert_eq!(decode_blocks(&Data::from_bytes(&[4, 9, 0x81, 0x80]).unwrap()), Ok(blocks.to_vec()));
    }

    #[test]
    fn parameters_of_methods_round_trip() {
        let id = ImageId { identifier: vec![0, 1], size: 7 };
        assert_eq!(ImageId::decode(&Data::from_bytes(&id.encode().to_vec()).unwrap()), Ok(id.clone()));
        assert_eq!(id.to_string(), "0001, 7 octets");
        assert_eq!(ImageId { identifier: b"FW 1".to_vec(), size: 7 }.to_string(), "FW 1, 7 octets");
        let block = Block { number: 3, octets: vec![1, 2, 3] };
        assert_eq!(Block::decode(&Data::from_bytes(&block.clone().encode().to_vec()).unwrap()), Ok(block));
    }
}
