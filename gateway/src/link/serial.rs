//! Serial ports.
//!
//! A port is opened exclusively. A read of no octets means that the device is gone (measured: an unplugged adapter answers so
//! without end), and so the port is closed before it is opened again: while an old handle lives, a replugged adapter gets a new
//! name. `flush` is never called: it blocks the thread until the last bit has left.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use protocols::iec62056_21::Framing;
use tokio::io::AsyncReadExt;
use tokio_serial::{ClearBuffer, DataBits, ErrorKind, SerialPort, SerialPortBuilderExt, SerialStream, StopBits};

use super::{ByteLink, Line, LinkLost, Medium, OpenError, clear_ready, send_all};
use crate::config::metering::{MediumSettings, Parity};

pub struct SerialMedium {
    settings: MediumSettings,
}

impl SerialMedium {
    pub fn new(settings: MediumSettings) -> Self {
        Self { settings }
    }
}

#[async_trait]
impl Medium for SerialMedium {
    fn describe(&self) -> String {
        self.settings.to_string()
    }

    async fn open(&self) -> Result<Box<dyn ByteLink>, OpenError> {
        let what = self.describe();
        let MediumSettings::Serial { path, baud, data_bits, parity, stop_bits, rts_on_send } = &self.settings else {
            return Err(OpenError::Other { what, cause: "it is no serial port".to_owned() });
        };
        let settings = Settings { baud: *baud, data_bits: *data_bits, parity: *parity, stop_bits: *stop_bits };
        let builder = tokio_serial::new(path.to_string_lossy(), *baud)
            .data_bits(settings.data_bits())
            .parity(settings.parity())
            .stop_bits(settings.stop_bits());
        let stream = builder.open_native_async().map_err(|error| {
            use std::io::ErrorKind as Io;
            let cause = error.to_string();
            match error.kind() {
                ErrorKind::NoDevice | ErrorKind::Io(Io::WouldBlock | Io::ResourceBusy) if path.exists() => {
                    OpenError::Busy { what, holder: holder_of(path) }
                }
                ErrorKind::NoDevice | ErrorKind::Io(Io::NotFound) => {
                    OpenError::Absent { what, advice: absent_advice(&ports_in(Path::new(BY_ID))) }
                }
                ErrorKind::Io(Io::PermissionDenied) => OpenError::Denied { what },
                _ => OpenError::Other { what, cause },
            }
        })?;
        let mut link = SerialLink { stream, opened_with: settings, set_to: settings, rts_on_send: *rts_on_send };
        link.turn(false).map_err(|error| {
            let cause = format!("its RTS cannot be switched ({error})");
            OpenError::Other { what: self.describe(), cause }
        })?;
        Ok(Box::new(link))
    }

    fn stays_open(&self) -> bool {
        true
    }

    fn octet_time_us(&self) -> u32 {
        match self.settings {
            MediumSettings::Serial { baud, data_bits, parity, stop_bits, .. } => {
                Settings { baud, data_bits, parity, stop_bits }.octet_time_us()
            }
            _ => 0,
        }
    }
}

/// Rate and framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Settings {
    baud: u32,
    data_bits: u8,
    parity: Parity,
    stop_bits: u8,
}

impl Settings {
    fn data_bits(self) -> DataBits {
        if self.data_bits == 7 { DataBits::Seven } else { DataBits::Eight }
    }

    fn parity(self) -> tokio_serial::Parity {
        match self.parity {
            Parity::None => tokio_serial::Parity::None,
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
        }
    }

    fn stop_bits(self) -> StopBits {
        if self.stop_bits == 2 { StopBits::Two } else { StopBits::One }
    }

    /// Start bit, data, parity, stop.
    fn octet_time_us(self) -> u32 {
        let bits = 1 + u32::from(self.data_bits) + u32::from(self.parity != Parity::None) + u32::from(self.stop_bits);
        bits * 1_000_000 / self.baud.max(1)
    }
}

impl From<Line> for Settings {
    fn from(line: Line) -> Self {
        let (data_bits, parity) = match line.framing {
            Framing::SevenEven => (7, Parity::Even),
            Framing::EightNone => (8, Parity::None),
        };
        Self { baud: line.baud.bits_per_second(), data_bits, parity, stop_bits: 1 }
    }
}

/// Where Linux names ports by what is plugged in: such a name stays when the adapters are plugged in in another order.
const BY_ID: &str = "/dev/serial/by-id";
/// In a message for people.
const PORTS_NAMED: usize = 4;

fn ports_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut ports: Vec<String> = entries.map(|entry| entry.path().display().to_string()).collect();
    ports.sort();
    ports
}

fn absent_advice(ports: &[String]) -> String {
    match ports {
        [] => "is it plugged in, and its name right?".to_owned(),
        all if all.len() <= PORTS_NAMED => format!("there is {}", all.join(", ")),
        [first @ .., _] => format!("there is {} and more in {BY_ID}", first[..PORTS_NAMED].join(", ")),
    }
}

/// Who holds a port, as far as this user may see that.
fn holder_of(path: &Path) -> String {
    let found = std::fs::canonicalize(path).ok().and_then(|port| find_holder(&port));
    found.unwrap_or_else(|| format!("`fuser {}` says which", path.display()))
}

fn find_holder(port: &Path) -> Option<String> {
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { continue };
        if open.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|held| held == port)) {
            let program = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {pid})", program.trim_end()));
        }
    }
    None
}

struct SerialLink {
    stream: SerialStream,
    opened_with: Settings,
    set_to: Settings,
    rts_on_send: Option<bool>,
}

impl SerialLink {
    /// The line is ours, or that of whoever answers.
    fn turn(&mut self, to_send: bool) -> tokio_serial::Result<()> {
        match self.rts_on_send {
            Some(level) => self.stream.write_request_to_send(level == to_send),
            None => Ok(()),
        }
    }

    /// Until the last octet has left the port, as far as the system knows, and its stop bit with it.
    async fn drained(&self) -> Result<(), LinkLost> {
        let octet_time = Duration::from_micros(self.set_to.octet_time_us().into());
        loop {
            let left = self.stream.bytes_to_write().map_err(|error| failed(&error))?;
            tokio::time::sleep(octet_time * (left + 1)).await;
            if left == 0 {
                return Ok(());
            }
        }
    }
}

/// Beyond the time that the octets themselves take.
const SEND_GRACE: Duration = Duration::from_secs(5);

fn failed(error: &tokio_serial::Error) -> LinkLost {
    LinkLost::Io(std::io::Error::other(error.to_string()))
}

#[async_trait]
impl ByteLink for SerialLink {
    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, LinkLost> {
        match self.stream.read(into).await {
            Ok(0) => Err(LinkLost::Gone),
            Ok(count) => Ok(count),
            Err(error) => Err(LinkLost::Io(error)),
        }
    }

    async fn send(&mut self, octets: &[u8]) -> Result<(), LinkLost> {
        let octet_time = Duration::from_micros(self.set_to.octet_time_us().into());
        let on_the_wire = octet_time * u32::try_from(octets.len()).unwrap_or(u32::MAX);
        if self.rts_on_send.is_none() {
            return send_all(&mut self.stream, octets, on_the_wire + SEND_GRACE).await;
        }
        self.turn(true).map_err(|error| failed(&error))?;
        send_all(&mut self.stream, octets, on_the_wire + SEND_GRACE).await?;
        tokio::time::timeout(on_the_wire + SEND_GRACE, self.drained())
            .await
            .map_err(|_| LinkLost::Stuck { timeout_ms: (on_the_wire + SEND_GRACE).as_millis() as u64 })??;
        self.turn(false).map_err(|error| failed(&error))
    }

    fn set_line(&mut self, line: Option<Line>) -> Result<(), LinkLost> {
        let wanted = line.map_or(self.opened_with, Settings::from);
        if wanted != self.set_to {
            self.stream.set_baud_rate(wanted.baud).map_err(|error| failed(&error))?;
            self.stream.set_data_bits(wanted.data_bits()).map_err(|error| failed(&error))?;
            self.stream.set_parity(wanted.parity()).map_err(|error| failed(&error))?;
            self.stream.set_stop_bits(wanted.stop_bits()).map_err(|error| failed(&error))?;
            self.set_to = wanted;
        }
        Ok(())
    }

    fn clear_input(&mut self) -> Result<(), LinkLost> {
        self.stream.clear(ClearBuffer::Input).map_err(|error| failed(&error))?;
        clear_ready(&mut self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medium(path: &str, data_bits: u8, parity: Parity) -> SerialMedium {
        let path = path.into();
        SerialMedium::new(MediumSettings::Serial {
            path,
            baud: 9600,
            data_bits,
            parity,
            stop_bits: 1,
            rts_on_send: None,
        })
    }

    #[test]
    fn an_octet_takes_as_long_as_its_bits() {
        assert_eq!(medium("x", 8, Parity::None).octet_time_us(), 1041);
        assert_eq!(medium("x", 7, Parity::Even).octet_time_us(), 1041);
        assert_eq!(medium("x", 8, Parity::Even).octet_time_us(), 1145);
    }

    #[tokio::test]
    async fn a_port_that_does_not_exist_is_named() {
        let error = medium("/dev/no-such-port", 8, Parity::None).open().await.err().unwrap();
        assert!(matches!(&error, OpenError::Absent { what, .. } if what == "/dev/no-such-port"), "{error}");
        assert!(error.to_string().starts_with("there is no /dev/no-such-port: "), "{error}");
    }

    /// Negative control: leave the names out of the advice.
    #[test]
    fn who_names_an_absent_port_is_told_which_there_are() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(absent_advice(&ports_in(&folder.path().join("none"))), "is it plugged in, and its name right?");
        for name in ["usb-FTDI-2", "usb-FTDI-1"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let there = folder.path().display();
        let advice = absent_advice(&ports_in(folder.path()));
        assert_eq!(advice, format!("there is {there}/usb-FTDI-1, {there}/usb-FTDI-2"));
        for number in 3..9 {
            std::fs::write(folder.path().join(format!("usb-FTDI-{number}")), "").unwrap();
        }
        let advice = absent_advice(&ports_in(folder.path()));
        assert!(advice.contains("usb-FTDI-4 and more in /dev/serial/by-id") && !advice.contains("FTDI-5"), "{advice}");
    }

    /// Both ends of a pty: the one that plays the meter, and the path of the other.
    fn pty() -> (SerialStream, String) {
        let (master, slave) = SerialStream::pair().unwrap();
        let path = slave.name().unwrap();
        (master, path)
    }

    /// Control, seen to fail: the rate of the last change kept when the settings are asked for.
    #[tokio::test]
    async fn a_port_changes_its_rate_and_goes_back_to_its_settings() {
        use protocols::iec62056_21::Baud;
        let (_meter, path) = pty();
        let mut link = SerialLink {
            stream: tokio_serial::new(&path, 9_600).open_native_async().unwrap(),
            opened_with: Settings { baud: 9_600, data_bits: 8, parity: Parity::None, stop_bits: 1 },
            set_to: Settings { baud: 9_600, data_bits: 8, parity: Parity::None, stop_bits: 1 },
            rts_on_send: None,
        };
        let rate = |link: &SerialLink| (link.stream.baud_rate().unwrap(), link.set_to.octet_time_us());
        link.set_line(Some(Line { baud: Baud::B300, framing: Framing::SevenEven })).unwrap();
        assert_eq!(rate(&link), (300, 33_333));
        link.set_line(Some(Line { baud: Baud::B4800, framing: Framing::EightNone })).unwrap();
        assert_eq!(rate(&link), (4_800, 2_083));
        link.set_line(None).unwrap();
        assert_eq!(rate(&link), (9_600, 1_041));
    }

    #[tokio::test]
    async fn a_port_carries_octets_and_forgets_what_came_too_early() {
        use tokio::io::AsyncWriteExt;
        let (mut meter, path) = pty();
        let mut link = medium(&path, 8, Parity::None).open().await.unwrap();
        meter.write_all(b"late answer").await.unwrap();
        let mut octets = [0; 32];
        let count = link.receive(&mut octets).await.unwrap();
        assert!(b"late answer".starts_with(&octets[..count]));
        meter.write_all(b"stale").await.unwrap();
        link.clear_input().unwrap();
        link.send(b"request").await.unwrap();
        let mut request = [0; 7];
        meter.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"request");
        meter.write_all(b"answer").await.unwrap();
        let count = link.receive(&mut octets).await.unwrap();
        assert!(b"answer".starts_with(&octets[..count]), "{:?}", &octets[..count]);
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_from_one_that_is_not_there() {
        let (_meter, path) = pty();
        let first = medium(&path, 8, Parity::None).open().await.unwrap();
        let error = medium(&path, 8, Parity::None).open().await.err().unwrap();
        assert!(matches!(&error, OpenError::Busy { what, .. } if *what == path), "{error}");
        // This test holds it.
        let holder = format!("(process {})", std::process::id());
        assert!(error.to_string().ends_with(&holder), "{error}");
        assert_eq!(holder_of(Path::new("/dev/no-such-port")), "`fuser /dev/no-such-port` says which");
        drop(first);
        assert!(medium(&path, 8, Parity::None).open().await.is_ok(), "free again");
    }

    #[tokio::test]
    async fn a_port_without_rts_says_so_when_it_is_to_switch_the_line() {
        let (_meter, path) = pty();
        let settings = MediumSettings::Serial {
            path: path.into(),
            baud: 9600,
            data_bits: 8,
            parity: Parity::None,
            stop_bits: 1,
            rts_on_send: Some(true),
        };
        let error = SerialMedium::new(settings).open().await.err().unwrap().to_string();
        assert!(error.contains("its RTS cannot be switched"), "{error}");
    }

    #[tokio::test]
    async fn a_port_waits_until_all_has_left_it() {
        use tokio::io::AsyncWriteExt;
        let (mut meter, path) = pty();
        let settings = Settings { baud: 9_600, data_bits: 8, parity: Parity::None, stop_bits: 1 };
        let stream = tokio_serial::new(&path, 9_600).open_native_async().unwrap();
        let mut link = SerialLink { stream, opened_with: settings, set_to: settings, rts_on_send: None };
        link.stream.write_all(&[0x55; 64]).await.unwrap();
        let mut octets = [0; 64];
        meter.read_exact(&mut octets).await.unwrap();
        link.drained().await.unwrap();
    }

    #[tokio::test]
    async fn an_unplugged_port_is_gone_and_not_read_for_ever() {
        let (meter, path) = pty();
        let mut link = medium(&path, 8, Parity::None).open().await.unwrap();
        drop(meter);
        let lost = link.receive(&mut [0; 8]).await.unwrap_err();
        assert!(matches!(lost, LinkLost::Gone | LinkLost::Io(_)), "{lost}");
    }
}
