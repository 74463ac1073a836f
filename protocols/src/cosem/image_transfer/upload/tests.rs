use super::*;
use crate::cosem::InterfaceClass as _;
use crate::cosem::image_transfer::ImageTransfer;

const DENIED: RequestError = RequestError::MethodRefused(ActionResult::READ_WRITE_DENIED);
const BUSY: RequestError = RequestError::MethodRefused(ActionResult::TEMPORARY_FAILURE);

/// A meter that takes images which end with the sum of their octets.
struct Meter {
    object: ImageTransfer,
    id: Option<ImageId>,
    image: Vec<u8>,
    /// Numbers of the blocks that came.
    received: Vec<u32>,
    /// Blocks that are taken and forgotten, once each.
    forgets: Vec<u32>,
    /// How often it says that it is busy.
    busy: u32,
    /// Answers of its status that still say that it works.
    works: u32,
    /// It does not give the bitmap.
    is_terse: bool,
    /// What it calls an image once it is verified; none: as it was announced.
    names: Vec<ImageId>,
    /// It lists what it has verified until it verifies again.
    keeps_list: bool,
}

impl Meter {
    fn new(block_size: u32) -> Self {
        let object = ImageTransfer { block_size, ..ImageTransfer::new(ImageTransfer::LOGICAL_NAME) };
        Self {
            object,
            id: None,
            image: Vec::new(),
            received: Vec::new(),
            forgets: Vec::new(),
            busy: 0,
            works: 0,
            is_terse: false,
            names: Vec::new(),
            keeps_list: false,
        }
    }

    fn get(&mut self, index: i8) -> Result<Vec<u8>, RequestError> {
        let blocks = &self.object.transferred_blocks;
        let first = blocks.iter().position(|is_there| !is_there).unwrap_or(blocks.len());
        self.object.first_not_transferred_block = u32::try_from(first).unwrap();
        if self.is_terse && index == IMAGE_TRANSFERRED_BLOCKS_STATUS {
            return Err(RequestError::Refused(DataAccessResult::ReadWriteDenied));
        }
        if index == IMAGE_TRANSFER_STATUS && self.works == 0 {
            self.object.status = match self.object.status {
                TransferStatus::VerificationInitiated => self.verified(),
                TransferStatus::ActivationInitiated => TransferStatus::ActivationSuccessful,
                other => other,
            };
        } else if index == IMAGE_TRANSFER_STATUS {
            self.works -= 1;
        }
        Ok(self.object.attribute(index).unwrap().to_vec())
    }

    fn verified(&mut self) -> TransferStatus {
        let (sum, octets) = self.image.split_last().unwrap();
        if octets.iter().fold(0u8, |sum, octet| sum.wrapping_add(*octet)) != *sum {
            return TransferStatus::VerificationFailed;
        }
        let names = if self.names.is_empty() { vec![self.id.clone().unwrap()] } else { self.names.clone() };
        let listed = names.into_iter().map(|id| ImageToActivate { id, signature: Vec::new() });
        self.object.to_activate = listed.collect();
        TransferStatus::VerificationSuccessful
    }

    fn invoke(&mut self, method: i8, parameter: &DataValue) -> Result<Vec<u8>, RequestError> {
        if !self.object.enabled {
            return Err(DENIED);
        }
        if self.busy > 0 {
            self.busy -= 1;
            return Err(BUSY);
        }
        let octets = parameter.to_vec();
        let data = Data::from_bytes(&octets).unwrap();
        match method {
            IMAGE_TRANSFER_INITIATE => {
                let id = ImageId::decode(&data).unwrap();
                let count = id.size.div_ceil(self.object.block_size);
                self.object.transferred_blocks = vec![false; count as usize];
                self.image = vec![0; id.size as usize];
                (self.object.status, self.id) = (TransferStatus::Initiated, Some(id));
                if !self.keeps_list {
                    self.object.to_activate.clear();
                }
            }
            IMAGE_BLOCK_TRANSFER => {
                let Block { number, octets } = Block::decode(&data).unwrap();
                self.received.push(number);
                let at = (number * self.object.block_size) as usize;
                self.image[at..at + octets.len()].copy_from_slice(&octets);
                let is_forgotten = self.forgets.iter().position(|forgotten| *forgotten == number);
                if let Some(place) = is_forgotten {
                    self.forgets.swap_remove(place);
                }
                self.object.transferred_blocks[number as usize] = is_forgotten.is_none();
            }
            IMAGE_VERIFY => self.object.status = TransferStatus::VerificationInitiated,
            _ => self.object.status = TransferStatus::ActivationInitiated,
        }
        Ok(Vec::new())
    }

    /// The link breaks when `requests` were answered.
    fn serve(&mut self, upload: &mut Upload<'_>, requests: usize) -> Option<Result<Outcome, UploadError>> {
        for _ in 0..requests {
            let answer = match upload.step() {
                Step::Done(outcome) => return Some(Ok(outcome)),
                Step::Wait(_) => {
                    upload.waited();
                    continue;
                }
                Step::Get(index) => self.get(index),
                Step::Set(index, value) => {
                    let octets = value.to_vec();
                    self.object.apply(index, &Data::from_bytes(&octets).unwrap()).unwrap();
                    Ok(Vec::new())
                }
                Step::Invoke(method, parameter) => self.invoke(method, &parameter),
            };
            let answered = match &answer {
                Ok(octets) => upload.answered(Ok(octets)),
                Err(error) => upload.answered(Err(error.clone())),
            };
            if let Err(error) = answered {
                return Some(Err(error));
            }
        }
        None
    }

    fn take(&mut self, image: &[u8], options: UploadOptions) -> Result<Outcome, UploadError> {
        let mut upload = Upload::new(image, b"FW 2".to_vec(), options)?;
        self.serve(&mut upload, 1_000).expect("the upload comes to an end")
    }
}

/// As many octets, the last of which is the sum of the others.
fn image(octets: usize) -> Vec<u8> {
    let mut image: Vec<u8> = (1..octets).map(|octet| octet as u8).collect();
    image.push(image.iter().fold(0, |sum, octet| sum.wrapping_add(*octet)));
    image
}

fn activate() -> UploadOptions {
    UploadOptions { activate: true, ..UploadOptions::default() }
}

fn named(identifier: &str, size: u32) -> ImageId {
    ImageId { identifier: identifier.into(), size }
}

/// An upload into such a meter is cut short after any request, and then comes to its end with nothing sent twice.
fn goes_on_after_any_interruption(meter: impl Fn() -> Meter) {
    let image = image(95);
    for cut in 0..25 {
        let mut meter = meter();
        let mut first = Upload::new(&image, b"FW 2".to_vec(), activate()).unwrap();
        let ended = meter.serve(&mut first, cut);
        let initiated = first.is_initiated().then(|| first.id().clone());
        let options = UploadOptions { initiated, ..activate() };
        let outcome = ended.unwrap_or_else(|| meter.take(&image, options));
        assert_eq!((outcome, &meter.image), (Ok(Outcome::Activated), &image), "cut {cut}");
        assert_eq!(meter.received, (0..10).collect::<Vec<_>>(), "cut {cut}");
    }
}

/// Control, seen to fail: cut the last block to the block size of the others.
#[test]
fn an_image_is_brought_verified_and_activated_whatever_its_length() {
    for octets in [1, 9, 10, 11, 99, 100, 101] {
        let mut meter = Meter::new(10);
        assert_eq!(meter.take(&image(octets), activate()), Ok(Outcome::Activated), "{octets} octets");
        assert_eq!(meter.image, image(octets));
        assert_eq!(meter.received, (0..octets.div_ceil(10) as u32).collect::<Vec<_>>());
    }
    let mut meter = Meter::new(10);
    assert_eq!(meter.take(&image(25), UploadOptions::default()), Ok(Outcome::Verified));
    assert_eq!(meter.object.status, TransferStatus::VerificationSuccessful);
    // It waits there: the next one activates it, and sends nothing.
    assert_eq!(meter.take(&image(25), activate()), Ok(Outcome::Activated));
    assert_eq!((meter.received.len(), meter.take(&image(25), activate())), (3, Ok(Outcome::Activated)));
}

/// Control, seen to fail: begin with block 0 again.
#[test]
fn an_upload_goes_on_after_any_interruption_and_sends_nothing_twice() {
    for is_terse in [false, true] {
        goes_on_after_any_interruption(|| Meter { is_terse, works: 2, ..Meter::new(10) });
    }
}

/// Negative controls: look in the list for the name that was announced, in the end or at the beginning.
#[test]
fn an_image_is_activated_by_whatever_names_the_meter_lists_it() {
    let parts = || vec![named("BOOT", 40), named("APP", 50)];
    for is_terse in [false, true] {
        goes_on_after_any_interruption(|| Meter { is_terse, works: 2, names: parts(), ..Meter::new(10) });
    }
    // Verified now and activated later.
    let image = image(95);
    let mut meter = Meter { names: parts(), ..Meter::new(10) };
    assert_eq!(meter.take(&image, UploadOptions::default()), Ok(Outcome::Verified));
    let other = UploadError::OtherTransfer { found: Some(named("BOOT", 40)) };
    assert_eq!(meter.take(&image, activate()), Err(other), "nobody knows what it is");
    let initiated = Some(named("FW 2", 95));
    assert_eq!(meter.take(&image, UploadOptions { initiated, ..activate() }), Ok(Outcome::Activated));
    assert_eq!(meter.received, (0..10).collect::<Vec<_>>());
}

/// Negative control: let the list tell what is only initiated, too.
#[test]
fn what_a_meter_still_lists_keeps_no_transfer_from_going_on() {
    goes_on_after_any_interruption(|| {
        let (mut meter, old) = (Meter { keeps_list: true, ..Meter::new(10) }, image(50));
        let mut before = Upload::new(&old, b"FW 1".to_vec(), activate()).unwrap();
        assert_eq!(meter.serve(&mut before, 100), Some(Ok(Outcome::Activated)));
        meter.received.clear();
        Meter { works: 2, ..meter }
    });
}

/// Negative controls: take what is listed for what is initiated; take what was taken over for the owner's own; take what is
/// remembered for what is listed under another name, whatever blocks the meter has.
#[test]
fn what_was_listed_or_remembered_is_no_proof_of_what_came_since() {
    let (old, new) = (image(50), image(95));
    let mut meter = Meter { keeps_list: true, ..Meter::new(10) };
    assert_eq!(meter.take(&new, activate()), Ok(Outcome::Activated));
    let mut other = Upload::new(&old, b"FW 1".to_vec(), UploadOptions::default()).unwrap();
    assert_eq!(meter.serve(&mut other, 6), None);
    let received = meter.received.len();
    assert_eq!(meter.take(&new, activate()), Err(UploadError::OtherTransfer { found: None }));
    assert_eq!((meter.received.len(), meter.object.status), (received, TransferStatus::Initiated));

    assert_eq!(meter.serve(&mut other, 6), None);
    assert_eq!(meter.object.status, TransferStatus::VerificationInitiated);
    meter.works = 3;
    let found = named("FW 1", 50);
    assert_eq!(meter.take(&new, activate()), Err(UploadError::OtherVerified { found: found.clone() }));
    let remembered = || UploadOptions { initiated: Some(named("FW 2", 95)), ..activate() };
    for is_terse in [false, true] {
        meter.is_terse = is_terse;
        let error = UploadError::OtherTransfer { found: Some(found.clone()) };
        assert_eq!(meter.take(&new, remembered()), Err(error));
    }
    assert_eq!(meter.object.status, TransferStatus::VerificationSuccessful);

    // Once that one is active, the next may begin.
    let mut other = Upload::new(&old, b"FW 1".to_vec(), activate()).unwrap();
    assert_eq!(meter.serve(&mut other, 100), Some(Ok(Outcome::Activated)));
    meter.received.clear();
    assert_eq!(meter.take(&new, remembered()), Ok(Outcome::Activated));
    assert_eq!((&meter.image, meter.received.len()), (&new, 10));
}

#[test]
fn a_transfer_of_another_image_is_left_alone() {
    let (old, new) = (image(50), image(95));
    let mut meter = Meter::new(10);
    let mut begun = Upload::new(&old, b"FW 1".to_vec(), UploadOptions::default()).unwrap();
    assert_eq!(meter.serve(&mut begun, 8), None);
    let received = meter.received.len();
    assert!(received > 0);
    // Nobody knows what it is; what the owner remembers is another identifier, another size.
    let other = |identifier: &str, size| Some(ImageId { identifier: identifier.into(), size });
    for initiated in [None, other("FW 1", 95), other("FW 2", 50)] {
        let options = UploadOptions { initiated: initiated.clone(), ..activate() };
        assert_eq!(meter.take(&new, options), Err(UploadError::OtherTransfer { found: initiated }));
    }
    assert_eq!((meter.received.len(), meter.object.status), (received, TransferStatus::Initiated));
    // Unless it is given up.
    assert_eq!(meter.take(&new, UploadOptions { restart: true, ..activate() }), Ok(Outcome::Activated));
    assert_eq!(meter.image, new);

    // One that is verified and waits has a name.
    let mut meter = Meter::new(10);
    assert_eq!(meter.take(&old, UploadOptions::default()), Ok(Outcome::Verified));
    let found = Some(ImageId { identifier: b"FW 2".to_vec(), size: 50 });
    let initiated = Some(ImageId { identifier: b"FW 2".to_vec(), size: 95 });
    let error = meter.take(&new, UploadOptions { initiated, ..activate() }).unwrap_err();
    assert_eq!(error, UploadError::OtherTransfer { found });
    assert_eq!(error.to_string(), "another transfer is under way, of FW 2, 50 octets");
}

#[test]
fn an_image_that_does_not_verify_is_not_activated_and_may_come_again() {
    let mut wrong = image(30);
    wrong[4] ^= 1;
    let mut meter = Meter::new(10);
    let failed = Err(UploadError::Failed { status: TransferStatus::VerificationFailed });
    assert_eq!(meter.take(&wrong, activate()), failed);
    assert_eq!(meter.take(&image(30), activate()), Ok(Outcome::Activated));
    assert_eq!(meter.received, [0, 1, 2, 0, 1, 2]);
}

/// Control, seen to fail: no bound.
#[test]
fn a_busy_meter_is_asked_again_and_given_up_in_the_end() {
    let mut meter = Meter { busy: 5, works: 7, ..Meter::new(10) };
    assert_eq!(meter.take(&image(30), activate()), Ok(Outcome::Activated));
    assert_eq!(meter.received, [0, 1, 2], "what was refused was not carried out");
    let mut meter = Meter { busy: u32::MAX, ..Meter::new(10) };
    let error = meter.take(&image(30), activate()).unwrap_err();
    assert_eq!(error.to_string(), "the meter is still busy after 600s: initiating the transfer");
    let mut meter = Meter { works: u32::MAX, ..Meter::new(10) };
    assert_eq!(meter.take(&image(30), activate()), Err(UploadError::Busy { what: "verifying the image" }));
}

#[test]
fn blocks_that_got_lost_are_sent_again_but_not_for_ever() {
    let mut meter = Meter { forgets: vec![1, 7, 7], ..Meter::new(10) };
    assert_eq!(meter.take(&image(95), activate()), Ok(Outcome::Activated));
    assert_eq!(meter.received[10..], [1, 7, 7]);
    let mut meter = Meter { forgets: vec![3; 20], ..Meter::new(10) };
    assert_eq!(meter.take(&image(95), activate()), Err(UploadError::KeepsMissing { first: 3 }));
}

#[test]
fn what_cannot_be_brought_is_refused_before_anything_is_sent() {
    assert_eq!(Meter::new(10).take(&[], activate()), Err(UploadError::Empty));
    for size in [0, 70_000] {
        assert_eq!(Meter::new(size).take(&image(9), activate()), Err(UploadError::BlockSize { size }));
    }
    let mut upload = Upload::new(&[1], Vec::new(), activate()).unwrap();
    assert_eq!(upload.answered(Ok(&[])), Err(UploadError::NoValue));
    assert!(matches!(upload.answered(Ok(&[0x11, 7])), Err(UploadError::Unreadable(_))));
    // Whoever may not read whether it is enabled may still be let.
    let denied = RequestError::Refused(DataAccessResult::ReadWriteDenied);
    assert_eq!(upload.answered(Err(denied.clone())), Ok(()));
    let refused = UploadError::Refused { what: "reading the block size", source: denied.clone() };
    assert_eq!(upload.answered(Err(denied)), Err(refused));
}
