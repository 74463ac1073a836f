//! P1, SML and IEC 62056-21.

use protocols::dlms::security::Key;
use protocols::iec62056_21::{self, DataBlock, PushScan, scan_push};
use protocols::metering::Quality;
use protocols::{p1, sml};

use super::{DecodeSettings, Said};

/// What ended in the middle.
const CUT: &str = "the octets end before the telegram does";

pub(super) fn p1(mut octets: Vec<u8>, settings: &DecodeSettings) -> Vec<Said> {
    p1::clear_even_parity(&mut octets);
    let (mut said, mut offset) = (Vec::new(), 0);
    loop {
        match p1::scan(&octets[offset..]) {
            p1::Scan::NeedMore => return cut(said, offset, octets.len()),
            p1::Scan::Garbage { skip, error } => {
                said.push(Said::error(&error, offset));
                offset += skip;
            }
            p1::Scan::Telegram { telegram, used } => {
                said.extend(p1_said(&telegram, offset, Quality::GOOD, settings));
                offset += used;
            }
        }
    }
}

fn p1_said(telegram: &p1::Telegram<'_>, offset: usize, quality: Quality, settings: &DecodeSettings) -> Vec<Said> {
    let policy = p1::Policy { accept_invalid_crc: settings.accept_invalid_crc };
    let decode = p1::Settings { policy, assumed_meter: settings.meter.clone(), ..p1::Settings::default() };
    match p1::Readout::decode(telegram, &decode, settings.received_at) {
        Ok(mut readout) => {
            let mut said = Vec::new();
            for part in &mut readout.meters {
                for reading in &mut part.readings {
                    reading.quality = reading.quality.with(quality);
                    said.push(Said::reading(&part.meter, reading));
                }
            }
            said.extend(readout.problems.iter().map(|problem| Said::error(problem, offset)));
            said
        }
        Err(error @ p1::ReadoutError::NoIdentity) => vec![Said::nameless(&error, offset)],
        Err(error) => vec![Said::error(&error, offset)],
    }
}

/// Without a key of authentication, that of Luxembourg is tried first.
pub(super) fn ciphered_p1(octets: &[u8], settings: &DecodeSettings) -> Vec<Said> {
    let luxembourg = Key::from(p1::AUTHENTICATION_KEY);
    let is_likely = settings.authentication_key.is_none() && settings.key.as_ref().is_some_and(|key| key.bits() == 128);
    let open = |apdu: &[u8]| match settings.open(apdu, Some(&luxembourg).filter(|_| is_likely)) {
        Err(_) => settings.open(apdu, settings.authentication_key.as_ref()),
        opened => opened,
    };
    let (mut said, mut offset, mut identification) = (Vec::new(), 0, p1::Identification::default());
    loop {
        match p1::scan_ciphered(&octets[offset..]) {
            p1::CipheredScan::NeedMore => return cut(said, offset, octets.len()),
            p1::CipheredScan::Garbage { skip, error } => {
                // A line end behind a block is none of it, and an identification may stand before it.
                if octets[offset..offset + skip].iter().any(|octet| !octet.is_ascii()) {
                    said.push(Said::error(&error, offset));
                }
                identification.take(&octets[offset..offset + skip]);
                offset += skip;
            }
            p1::CipheredScan::Block { apdu } => match open(apdu) {
                Ok(opened) => {
                    let content = identification.join(opened.apdu);
                    match p1::Telegram::parse(&content) {
                        Ok(telegram) => said.extend(p1_said(&telegram, offset, opened.quality, settings)),
                        Err(error) => said.push(Said::error(&error, offset)),
                    }
                    identification.clear();
                    offset += apdu.len();
                }
                Err(refusal) => {
                    said.push(Said::error(&refusal.text, offset));
                    offset += 1;
                }
            },
        }
    }
}

pub(super) fn sml(octets: &[u8], settings: &DecodeSettings) -> Vec<Said> {
    let policy = sml::Policy { accept_invalid_crc: settings.accept_invalid_crc };
    let decode = sml::Settings { policy, assumed_meter: settings.meter.clone(), ..sml::Settings::default() };
    let (mut said, mut offset) = (Vec::new(), 0);
    loop {
        match sml::scan(&octets[offset..]) {
            sml::Scan::NeedMore => return cut(said, offset, octets.len()),
            sml::Scan::Garbage { skip, error } => {
                said.push(Said::error(&error, offset));
                offset += skip;
            }
            sml::Scan::File { file, used } => {
                match sml::Readout::decode(&file, &decode, settings.received_at) {
                    Ok(readout) => {
                        for part in &readout.meters {
                            said.extend(part.readings.iter().map(|reading| Said::reading(&part.meter, reading)));
                        }
                        said.extend(readout.problems.iter().map(|problem| Said::error(problem, offset)));
                    }
                    Err(error @ sml::ReadoutError::NoIdentity) => said.push(Said::nameless(&error, offset)),
                    Err(error) => said.push(Said::error(&error, offset)),
                }
                offset += used;
            }
        }
    }
}

/// Octets in which no push begins are taken for bare data lines.
pub(super) fn iec62056_21(mut octets: Vec<u8>, settings: &DecodeSettings) -> Vec<Said> {
    p1::clear_even_parity(&mut octets);
    let (mut said, mut offset) = (Vec::new(), 0);
    let begins = |rest: &[u8]| rest.contains(&b'/');
    if !begins(&octets) && octets.contains(&b'(') {
        let block = DataBlock { identification: None, content: octets, quality: Quality::UNAUTHENTICATED };
        return block_said(&block, 0, settings);
    }
    loop {
        match scan_push(&octets[offset..]) {
            PushScan::NeedMore => return cut(said, offset, octets.len()),
            PushScan::Garbage { skip, error } => {
                said.push(Said::error(&error, offset));
                offset += skip;
            }
            PushScan::Push { push, used } => {
                match push.into_block(settings.accept_invalid_crc) {
                    Ok(block) => said.extend(block_said(&block, offset, settings)),
                    Err(error) => said.push(Said::error(&error, offset)),
                }
                offset += used;
            }
        }
    }
}

fn block_said(block: &DataBlock, offset: usize, settings: &DecodeSettings) -> Vec<Said> {
    let decode = iec62056_21::Settings { assumed_meter: settings.meter.clone(), ..iec62056_21::Settings::default() };
    match iec62056_21::Readout::decode(block, &decode, settings.received_at) {
        Ok(readout) => {
            let readings = readout.readings.iter().map(|reading| Said::reading(&readout.meter, reading));
            readings.chain(readout.problems.iter().map(|problem| Said::error(problem, offset))).collect()
        }
        Err(error @ iec62056_21::ReadoutError::NoIdentity) => vec![Said::nameless(&error, offset)],
        Err(error) => vec![Said::error(&error, offset)],
    }
}

fn cut(mut said: Vec<Said>, offset: usize, len: usize) -> Vec<Said> {
    if offset < len {
        said.push(Said::error(&CUT, offset));
    }
    said
}
