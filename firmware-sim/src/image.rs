//! New firmware for a virtual meter, as class 18 has it. An image is one for these meters when its last four octets are the CRC-32 of
//! those before, the highest first. It changes nothing in the meter.

use protocols::cosem::image_transfer::{
    Block, IMAGE_ACTIVATE, IMAGE_BLOCK_TRANSFER, IMAGE_TRANSFER_INITIATE, IMAGE_VERIFY, ImageId, ImageToActivate,
    ImageTransfer, TransferStatus,
};
use protocols::dlms::apdu::ActionResult;
use protocols::dlms::data::Data;

/// Fits a request of the shortest APDU that meters take.
const BLOCK_SIZE: u32 = 128;
/// Beyond what a meter's memory holds.
const IMAGE_BYTES_MAX: u32 = 1024 * 1024;
const CRC_OCTETS: usize = 4;

#[derive(Debug, Clone)]
pub struct ImageSlot {
    object: ImageTransfer,
    id: Option<ImageId>,
    image: Vec<u8>,
}

impl Default for ImageSlot {
    fn default() -> Self {
        let object = ImageTransfer { block_size: BLOCK_SIZE, ..ImageTransfer::new(ImageTransfer::LOGICAL_NAME) };
        Self { object, id: None, image: Vec::new() }
    }
}

impl ImageSlot {
    pub const fn object(&self) -> &ImageTransfer {
        &self.object
    }

    pub fn enable(&mut self, enabled: bool) {
        self.object.enabled = enabled;
    }

    /// Carries out a method with its decoded parameter.
    pub fn invoke(&mut self, method: i8, parameter: &Data<'_>) -> Result<(), ActionResult> {
        if !self.object.enabled {
            return Err(ActionResult::READ_WRITE_DENIED);
        }
        match (method, parameter) {
            (IMAGE_TRANSFER_INITIATE, data) => {
                self.initiate(ImageId::decode(data).map_err(|_| ActionResult::TYPE_UNMATCHED)?)
            }
            (IMAGE_BLOCK_TRANSFER, data) => self.take(&Block::decode(data).map_err(|_| ActionResult::TYPE_UNMATCHED)?),
            (IMAGE_VERIFY, Data::Integer(0)) => self.verify(),
            (IMAGE_ACTIVATE, Data::Integer(0)) => self.activate(),
            _ => Err(ActionResult::TYPE_UNMATCHED),
        }
    }

    fn initiate(&mut self, id: ImageId) -> Result<(), ActionResult> {
        if !(1..=IMAGE_BYTES_MAX).contains(&id.size) {
            return Err(ActionResult::OTHER_REASON);
        }
        self.image = vec![0; id.size as usize];
        self.object.transferred_blocks = vec![false; id.size.div_ceil(BLOCK_SIZE) as usize];
        self.object.first_not_transferred_block = 0;
        self.object.status = TransferStatus::Initiated;
        self.object.to_activate.clear();
        self.id = Some(id);
        Ok(())
    }

    fn take(&mut self, block: &Block) -> Result<(), ActionResult> {
        let number = block.number as usize;
        let place = self.image.chunks_mut(BLOCK_SIZE as usize).nth(number);
        match place.filter(|place| place.len() == block.octets.len()) {
            Some(place) if self.object.status == TransferStatus::Initiated => place.copy_from_slice(&block.octets),
            _ => return Err(ActionResult::OTHER_REASON),
        }
        let blocks = &mut self.object.transferred_blocks;
        blocks[number] = true;
        let first = blocks.iter().position(|is_there| !is_there).unwrap_or(blocks.len());
        self.object.first_not_transferred_block = first as u32;
        Ok(())
    }

    fn verify(&mut self) -> Result<(), ActionResult> {
        let (ImageTransfer { status, transferred_blocks, .. }, Some(id)) = (&self.object, &self.id) else {
            return Err(ActionResult::OTHER_REASON);
        };
        if *status != TransferStatus::Initiated || transferred_blocks.contains(&false) {
            return Err(ActionResult::OTHER_REASON);
        }
        let Some((octets, crc)) = self.image.split_last_chunk::<CRC_OCTETS>() else { return self.fail() };
        if crc_of(octets) != *crc {
            return self.fail();
        }
        self.object.to_activate = vec![ImageToActivate { id: id.clone(), signature: crc.to_vec() }];
        self.object.status = TransferStatus::VerificationSuccessful;
        Ok(())
    }

    fn fail(&mut self) -> Result<(), ActionResult> {
        self.object.status = TransferStatus::VerificationFailed;
        Err(ActionResult::OTHER_REASON)
    }

    fn activate(&mut self) -> Result<(), ActionResult> {
        if self.object.status != TransferStatus::VerificationSuccessful {
            return Err(ActionResult::OTHER_REASON);
        }
        self.object.status = TransferStatus::ActivationSuccessful;
        Ok(())
    }
}

/// What an image of a virtual meter ends with.
pub fn crc_of(octets: &[u8]) -> [u8; CRC_OCTETS] {
    let mut crc = flate2::Crc::new();
    crc.update(octets);
    crc.sum().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use protocols::cosem::image_transfer::upload::{Outcome, Step, Upload, UploadError, UploadOptions};
    use protocols::cosem::{InterfaceClass as _, image_transfer};
    use protocols::dlms::client::RequestError;

    use super::*;

    fn bring(slot: &mut ImageSlot, image: &[u8]) -> Result<Outcome, UploadError> {
        let options = UploadOptions { activate: true, ..UploadOptions::default() };
        let mut upload = Upload::new(image, b"FW 2".to_vec(), options)?;
        loop {
            let answer = match upload.step() {
                Step::Done(outcome) => return Ok(outcome),
                Step::Get(index) => Ok(slot.object().attribute(index).unwrap().to_vec()),
                Step::Set(image_transfer::IMAGE_TRANSFER_ENABLED, _) => {
                    slot.enable(true);
                    Ok(Vec::new())
                }
                Step::Invoke(method, parameter) => {
                    let octets = parameter.to_vec();
                    let invoked = slot.invoke(method, &Data::from_bytes(&octets).unwrap());
                    invoked.map(|()| Vec::new()).map_err(RequestError::MethodRefused)
                }
                step => panic!("{step:?}"),
            };
            match answer {
                Ok(octets) => upload.answered(Ok(&octets))?,
                Err(error) => upload.answered(Err(error))?,
            }
        }
    }

    /// Control, seen to fail: a slot that looks at no CRC.
    #[test]
    fn an_image_is_taken_by_its_crc() {
        for octets in [1_usize, 124, 125, 1_000] {
            let mut image = vec![7; octets];
            image.extend(crc_of(&image));
            let mut slot = ImageSlot::default();
            assert_eq!(bring(&mut slot, &image), Ok(Outcome::Activated), "{octets}");
            image[0] ^= 1;
            let mut slot = ImageSlot::default();
            let error = bring(&mut slot, &image).unwrap_err();
            assert!(matches!(error, UploadError::Refused { what: "verifying the image", .. }), "{error:?}");
            assert_eq!(slot.object().status, TransferStatus::VerificationFailed);
        }
    }

    #[test]
    fn what_is_no_block_of_the_image_is_refused() {
        let mut slot = ImageSlot::default();
        let id = ImageId { identifier: b"FW 2".to_vec(), size: 200 };
        assert_eq!(slot.invoke(IMAGE_VERIFY, &Data::Integer(0)), Err(ActionResult::READ_WRITE_DENIED));
        slot.enable(true);
        assert_eq!(slot.initiate(ImageId { size: IMAGE_BYTES_MAX + 1, ..id.clone() }), Err(ActionResult::OTHER_REASON));
        assert_eq!(slot.initiate(id), Ok(()));
        for (number, octets) in [(2, 1), (u32::MAX, 128), (0, 127), (1, 128)] {
            let block = Block { number, octets: vec![0; octets] };
            assert_eq!(slot.take(&block), Err(ActionResult::OTHER_REASON), "{number} {octets}");
        }
        assert_eq!(slot.take(&Block { number: 1, octets: vec![0; 72] }), Ok(()));
        assert_eq!(slot.object().first_not_transferred_block, 0);
        assert_eq!(slot.invoke(IMAGE_VERIFY, &Data::Integer(0)), Err(ActionResult::OTHER_REASON));
        assert_eq!(slot.invoke(IMAGE_ACTIVATE, &Data::Integer(0)), Err(ActionResult::OTHER_REASON));
    }
}
