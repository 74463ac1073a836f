//! Date-time, date and time of COSEM (IEC 62056-6-2, clause "Date and time formats"), wildcards included.

/// Year (2), month, day of month, day of week, hour, minute, second, hundredths, deviation (2), clock status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DateTime(pub [u8; 12]);

/// Year (2), month, day of month, day of week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Date(pub [u8; 5]);

/// Hour, minute, second, hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Time(pub [u8; 4]);
