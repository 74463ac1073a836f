//! COSEM interface classes (IEC 62056-6-2): what attributes mean, one class per file.
