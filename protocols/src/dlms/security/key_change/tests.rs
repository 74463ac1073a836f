use super::*;
use crate::dlms::data::Data;
use crate::dlms::security::unwrap_key;

/// What becomes of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    RequestLost,
    AnswerLost,
}

const FATES: [Fate; 3] = [Fate::Fine, Fate::RequestLost, Fate::AnswerLost];

fn key(octet: u8) -> Key {
    Key::from([octet; 16])
}

fn old() -> GlobalKeys {
    GlobalKeys { unicast: key(1), broadcast: Some(key(2)), authentication: Some(key(3)), key_encrypting: key(4) }
}

fn new() -> GlobalKeys {
    GlobalKeys { unicast: key(11), broadcast: Some(key(12)), authentication: Some(key(13)), key_encrypting: key(14) }
}

fn wanted() -> Vec<(GlobalKey, Key)> {
    // In no good order.
    vec![
        (GlobalKey::KeyEncrypting, key(14)),
        (GlobalKey::Authentication, key(13)),
        (GlobalKey::UnicastEncryption, key(11)),
        (GlobalKey::BroadcastEncryption, key(12)),
    ]
}

fn stored(in_force: GlobalKeys) -> StoredKeys {
    StoredKeys { in_force, pending: None }
}

struct Meter {
    keys: GlobalKeys,
    /// Refuses this key.
    refuses: Option<GlobalKey>,
    /// Says yes and changes nothing.
    is_stubborn: bool,
}

impl Meter {
    fn new(keys: GlobalKeys) -> Self {
        Self { keys, refuses: None, is_stubborn: false }
    }

    fn associates(&self, keys: &GlobalKeys) -> bool {
        (&keys.unicast, &keys.authentication) == (&self.keys.unicast, &self.keys.authentication)
    }

    fn transfer(&mut self, keys: &GlobalKeys, parameters: &[u8]) -> StepOutcome {
        if !self.associates(keys) {
            return StepOutcome::Refused;
        }
        for KeyData { key, octets } in KeyData::decode(&Data::from_bytes(parameters).unwrap()).unwrap() {
            match unwrap_key(&self.keys.key_encrypting, &octets) {
                Ok(_) if self.refuses == Some(key) => return StepOutcome::Refused,
                Ok(_) if self.is_stubborn => {}
                Ok(new) => self.keys = self.keys.clone().with(key, new),
                Err(_) => return StepOutcome::Refused,
            }
        }
        StepOutcome::Done
    }

    fn hear(&mut self, step: &KeyChangeStep, fate: Fate) -> StepOutcome {
        if fate == Fate::RequestLost {
            return StepOutcome::Unknown;
        }
        let outcome = match step {
            KeyChangeStep::Transfer { keys, parameters }
            | KeyChangeStep::Try { keys, parameters: Some(parameters) } => self.transfer(keys, parameters),
            KeyChangeStep::Try { keys, parameters: None } if self.associates(keys) => StepOutcome::Done,
            KeyChangeStep::Try { .. } => StepOutcome::Refused,
            other => panic!("not for a meter: {other:?}"),
        };
        if fate == Fate::Fine { outcome } else { StepOutcome::Unknown }
    }
}

/// Takes steps until nothing is left to do, or `steps` are done. Whatever happens, the disk has what the meter uses.
fn take_steps(
    change: &mut KeyChange,
    meter: &mut Meter,
    disk: &mut StoredKeys,
    fates: &mut dyn Iterator<Item = Fate>,
    steps: usize,
) {
    for _ in 0..steps {
        let outcome = match change.step() {
            KeyChangeStep::Finished | KeyChangeStep::Refused(_) | KeyChangeStep::Neither(_) => return,
            KeyChangeStep::Store(keys) => {
                *disk = keys;
                StepOutcome::Done
            }
            step => meter.hear(&step, fates.next().unwrap_or(Fate::Fine)),
        };
        assert!(disk.in_force == meter.keys || disk.arrived() == meter.keys, "a key is lost");
        change.handle(outcome);
    }
}

/// Enough for four keys, each of them with all its trials.
const ENOUGH: usize = 100;

// Negative control: transfer a key before it is stored, or forget the old one when the transfer is answered.
#[test]
fn whoever_dies_after_any_step_has_the_keys_of_the_meter_and_finishes() {
    for fates in 0..3usize.pow(4) {
        let fates: Vec<Fate> = (0..4).map(|place| FATES[fates / 3usize.pow(place) % 3]).collect();
        for killed_after in 0..24 {
            // Killed before what came of the last step was heard, or behind it.
            for is_heard in [false, true] {
                let (mut meter, mut disk) = (Meter::new(old()), stored(old()));
                let mut change = KeyChange::new(disk.clone(), wanted());
                let mut fates = fates.iter().copied();
                take_steps(&mut change, &mut meter, &mut disk, &mut fates, killed_after);
                if !is_heard {
                    match change.step() {
                        KeyChangeStep::Store(keys) => disk = keys,
                        step @ (KeyChangeStep::Transfer { .. } | KeyChangeStep::Try { .. }) => {
                            meter.hear(&step, Fate::AnswerLost);
                        }
                        _ => {}
                    }
                }
                let mut change = KeyChange::new(disk.clone(), wanted());
                take_steps(&mut change, &mut meter, &mut disk, &mut fates, ENOUGH);
                assert_eq!(change.step(), KeyChangeStep::Finished, "killed after {killed_after}");
                assert_eq!((&meter.keys, &disk), (&new(), &stored(new())), "killed after {killed_after}");
            }
        }
    }
}

#[test]
fn the_key_encrypting_key_goes_last_and_each_key_alone() {
    let (mut meter, mut disk) = (Meter::new(old()), stored(old()));
    let mut change = KeyChange::new(disk.clone(), wanted());
    let mut sent = Vec::new();
    while change.step() != KeyChangeStep::Finished {
        if let KeyChangeStep::Transfer { parameters, .. } = change.step() {
            sent.extend(KeyData::decode(&Data::from_bytes(&parameters).unwrap()).unwrap());
        }
        take_steps(&mut change, &mut meter, &mut disk, &mut std::iter::empty(), 1);
    }
    assert_eq!(sent.iter().map(|data| data.key).collect::<Vec<_>>(), GlobalKey::ALL);
    assert_eq!(change.stored(), &stored(new()));
}

#[test]
fn a_key_that_the_meter_refuses_leaves_the_old_one_in_force() {
    for which in GlobalKey::ALL {
        let (mut meter, mut disk) = (Meter::new(old()), stored(old()));
        meter.refuses = Some(which);
        let alone = wanted().into_iter().filter(|(key, _)| *key == which).collect();
        let mut change = KeyChange::new(disk.clone(), alone);
        take_steps(&mut change, &mut meter, &mut disk, &mut std::iter::empty(), ENOUGH);
        assert_eq!(change.step(), KeyChangeStep::Refused(which));
        assert_eq!((disk, meter.keys), (stored(old()), old()));
    }
}

#[test]
fn a_meter_that_says_yes_and_changes_nothing_is_found_out() {
    for which in [GlobalKey::UnicastEncryption, GlobalKey::Authentication] {
        let (mut meter, mut disk) = (Meter::new(old()), stored(old()));
        meter.is_stubborn = true;
        let alone = wanted().into_iter().filter(|(key, _)| *key == which).collect();
        let mut change = KeyChange::new(disk.clone(), alone);
        take_steps(&mut change, &mut meter, &mut disk, &mut std::iter::empty(), ENOUGH);
        assert_eq!(change.step(), KeyChangeStep::Refused(which));
        assert_eq!(disk, stored(old()));
    }
}

#[test]
fn where_neither_key_is_taken_both_are_kept() {
    let (mut meter, mut disk) = (Meter::new(old()), stored(old()));
    let mut change = KeyChange::new(disk.clone(), vec![(GlobalKey::UnicastEncryption, key(11))]);
    take_steps(&mut change, &mut meter, &mut disk, &mut [Fate::RequestLost].into_iter(), 2);
    meter.keys.unicast = key(0x77);
    for _ in 0..2 {
        change.handle(StepOutcome::Refused);
    }
    assert_eq!(change.step(), KeyChangeStep::Neither(GlobalKey::UnicastEncryption));
    let both = StoredKeys { in_force: old(), pending: Some((GlobalKey::UnicastEncryption, key(11))) };
    assert_eq!((change.stored(), &disk), (&both, &both));
    change.handle(StepOutcome::Done);
    assert_eq!(change.step(), KeyChangeStep::Neither(GlobalKey::UnicastEncryption));
}

#[test]
fn silence_settles_nothing() {
    let both = StoredKeys { in_force: old(), pending: Some((GlobalKey::UnicastEncryption, key(11))) };
    let mut change = KeyChange::new(both.clone(), Vec::new());
    for _ in 0..10 {
        assert!(matches!(change.step(), KeyChangeStep::Try { keys, .. } if keys.unicast == key(11)));
        change.handle(StepOutcome::Unknown);
    }
    assert_eq!(change.stored(), &both);
    // Of a broadcast key nothing but a repetition tells, and a refusal of that tells nothing.
    let both = StoredKeys { in_force: old(), pending: Some((GlobalKey::BroadcastEncryption, key(12))) };
    let mut change = KeyChange::new(both.clone(), Vec::new());
    assert!(matches!(change.step(), KeyChangeStep::Transfer { .. }));
    change.handle(StepOutcome::Refused);
    assert_eq!(change.step(), KeyChangeStep::Neither(GlobalKey::BroadcastEncryption));
    assert_eq!(change.stored(), &both);
}

#[test]
fn nothing_that_is_printed_shows_a_key() {
    let mut change = KeyChange::new(stored(old()), wanted());
    for _ in 0..4 {
        let shown = format!("{change:?} {:?} {:?}", change.stored(), new());
        assert!(!shown.contains("11, 11") && !shown.contains("[1, 1"));
        change.handle(StepOutcome::Done);
    }
}
