//! What is known of a meter between its sessions: kept small, since there may be a hundred thousand. All of it can be found out
//! again.

use protocols::cosem::profile_generic::{CaptureObject, SortMethod};
use protocols::cosem::register::ScalerUnit;
use protocols::metering::{MeterId, ObisCode};

use crate::agenda::cursor::{ProfileCursor, Rhythm};

/// An object whose scaler is known. Scalers differ from device to device and are read, never assumed; a meter that is
/// parametrised anew closes its link, and a new firmware does too.
#[derive(Debug, Clone, Copy)]
pub struct KnownObject {
    pub class_id: u16,
    pub obis: ObisCode,
    pub scaler_unit: ScalerUnit,
}

/// How the rows of a profile are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    #[default]
    Range,
    /// The meter refuses ranges: the newest entries by number, and the whole buffer for what lies further back.
    Entry,
    Whole,
}

#[derive(Debug)]
pub struct Layout {
    pub columns: Box<[CaptureObject]>,
    pub capture_period_s: u32,
    pub sort_method: SortMethod,
}

impl Layout {
    pub fn rhythm(&self) -> Rhythm {
        Rhythm::of(self.capture_period_s)
    }
}

/// What the outbox says of a profile's cursor.
#[derive(Debug, Default)]
pub enum OnDisk {
    /// Not asked yet, or a transaction of which nobody knows whether it succeeded.
    #[default]
    Unknown,
    NeverRead,
    At(ProfileCursor),
}

/// One profile or event log.
#[derive(Debug, Default)]
pub struct ProfileMemory {
    pub layout: Option<Box<Layout>>,
    pub cursor: OnDisk,
    pub access: Access,
}

#[derive(Debug, Default)]
pub struct MeterMemory {
    /// Who answered last: everything else here is about that meter.
    pub identity: Option<MeterId>,
    pub objects: Vec<KnownObject>,
    /// One per read section; unused for those that read no profile.
    pub profiles: Box<[ProfileMemory]>,
    /// The clock offset that the outbox knows.
    pub offset_ms: Option<i64>,
}

impl MeterMemory {
    pub fn new(reads: usize) -> Self {
        Self { profiles: (0..reads).map(|_| ProfileMemory::default()).collect(), ..Self::default() }
    }

    /// Somebody else answers: nothing of this holds for him.
    pub fn forget(&mut self) {
        *self = Self::new(self.profiles.len());
    }

    pub fn object(&self, class_id: u16, obis: ObisCode) -> Option<ScalerUnit> {
        let found = self.objects.iter().find(|object| (object.class_id, object.obis) == (class_id, obis));
        found.map(|object| object.scaler_unit)
    }

    pub fn know(&mut self, class_id: u16, obis: ObisCode, scaler_unit: ScalerUnit) {
        if self.object(class_id, obis).is_none() {
            self.objects.push(KnownObject { class_id, obis, scaler_unit });
        }
    }

    /// Whether any profile has a gap that is known of.
    pub fn has_backlog(&self) -> bool {
        let has_gaps =
            |profile: &ProfileMemory| matches!(&profile.cursor, OnDisk::At(cursor) if !cursor.gaps().is_empty());
        self.profiles.iter().any(has_gaps)
    }
}
