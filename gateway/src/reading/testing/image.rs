//! New firmware for the virtual meter: an image is sound when its last octet is the exclusive or of the others.

use protocols::cosem::InterfaceClass as _;
use protocols::cosem::image_transfer::{Block, ImageId, ImageToActivate, ImageTransfer, TransferStatus};
use protocols::dlms::apdu::ActionResult;
use protocols::dlms::data::Data;
use protocols::dlms::value::DataValue;

pub(crate) const BLOCK_SIZE: usize = 50;

pub(crate) struct ImageBody {
    object: ImageTransfer,
    pub(crate) octets: Vec<u8>,
    /// Numbers of the blocks that were taken.
    pub(crate) received: Vec<u32>,
    /// It takes no more than so many.
    pub(crate) refuses_after: Option<usize>,
    /// It lists what it has verified under this name.
    pub(crate) listed_as: Option<ImageId>,
}

impl Default for ImageBody {
    fn default() -> Self {
        let block_size = BLOCK_SIZE as u32;
        let object = ImageTransfer { block_size, enabled: true, ..ImageTransfer::new(ImageTransfer::LOGICAL_NAME) };
        Self { object, octets: Vec::new(), received: Vec::new(), refuses_after: None, listed_as: None }
    }
}

pub(crate) fn sound_image(octets: usize) -> Vec<u8> {
    let mut image: Vec<u8> = (1..octets).map(|octet| octet as u8).collect();
    image.push(image.iter().fold(0, |sum, octet| sum ^ octet));
    image
}

impl ImageBody {
    pub(super) fn read(&self, index: i8) -> Option<DataValue> {
        self.object.attribute(index)
    }

    pub(super) fn invoke(&mut self, method: i8, parameter: &[u8]) -> Result<(), ActionResult> {
        let data = Data::from_bytes(parameter).map_err(|_| ActionResult::TYPE_UNMATCHED)?;
        match method {
            1 => {
                let id = ImageId::decode(&data).map_err(|_| ActionResult::TYPE_UNMATCHED)?;
                self.octets = vec![0; id.size as usize];
                self.object.transferred_blocks = vec![false; self.octets.len().div_ceil(BLOCK_SIZE)];
                self.object.status = TransferStatus::Initiated;
            }
            2 => {
                let Block { number, octets } = Block::decode(&data).map_err(|_| ActionResult::TYPE_UNMATCHED)?;
                if self.refuses_after.is_some_and(|count| self.received.len() >= count) {
                    return Err(ActionResult::OTHER_REASON);
                }
                self.octets.chunks_mut(BLOCK_SIZE).nth(number as usize).unwrap().copy_from_slice(&octets);
                self.object.transferred_blocks[number as usize] = true;
                self.received.push(number);
            }
            3 => {
                let is_sound = self.octets.iter().fold(0, |sum, octet| sum ^ octet) == 0;
                let failed = TransferStatus::VerificationFailed;
                self.object.status = if is_sound { TransferStatus::VerificationSuccessful } else { failed };
                let listed = self.listed_as.clone().filter(|_| is_sound);
                self.object.to_activate =
                    listed.map(|id| ImageToActivate { id, signature: Vec::new() }).into_iter().collect();
            }
            _ => self.object.status = TransferStatus::ActivationSuccessful,
        }
        let blocks = &self.object.transferred_blocks;
        self.object.first_not_transferred_block =
            blocks.iter().position(|is_there| !is_there).unwrap_or(blocks.len()) as u32;
        Ok(())
    }
}
