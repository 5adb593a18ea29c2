//! Cron schedules: five fields, or `@hourly` and the like. Only checked here; the CronJob controller reads them.

/// (name, least, most) of the fields in order.
const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 6)];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const DESCRIPTORS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Why a text is no schedule, in the words of upstream's parser.
pub fn check(schedule: &str) -> Result<(), String> {
    if let Some(rest) = schedule.strip_prefix('@') {
        let is_interval = rest.strip_prefix("every ").is_some_and(is_duration);
        if is_interval || DESCRIPTORS.contains(&schedule) {
            return Ok(());
        }
        return Err(match rest.strip_prefix("every ") {
            Some(interval) => format!("failed to parse duration {schedule}: time: invalid duration {interval:?}"),
            None => format!("unrecognized descriptor: {schedule}"),
        });
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (text, (name, least, most)) in fields.iter().zip(FIELDS) {
        for part in text.split(',') {
            range(part, name, least, most)?;
        }
    }
    Ok(())
}

/// `*`, `5`, `1-5`, each with `/step`.
fn range(text: &str, name: &str, least: u32, most: u32) -> Result<(), String> {
    let (span, step) = match text.split_once('/') {
        Some((_, step)) if step.contains('/') => return Err(format!("too many slashes: {text}")),
        Some((span, step)) => (span, Some(step)),
        None => (text, None),
    };
    let (start, end) = match span {
        "*" | "?" => (least, most),
        _ => match span.split_once('-') {
            Some((_, end)) if end.contains('-') => return Err(format!("too many hyphens: {text}")),
            Some((start, end)) => (number(start, name)?, number(end, name)?),
            None => number(span, name).map(|n| (n, if step.is_some() { most } else { n }))?,
        },
    };
    if let Some(step) = step
        && plain_number(step)? == 0
    {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    if start < least {
        return Err(format!("beginning of range ({start}) below minimum ({least}): {text}"));
    }
    if end > most {
        return Err(format!("end of range ({end}) above maximum ({most}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    Ok(())
}

/// A number, or the name of a month or day.
fn number(text: &str, field: &str) -> Result<u32, String> {
    let lower = text.to_lowercase();
    let (names, first): (&[&str], u32) = match field {
        "month" => (&MONTHS, 1),
        "day of week" => (&DAYS, 0),
        _ => (&[], 0),
    };
    match names.iter().zip(first..).find(|(name, _)| **name == lower) {
        Some((_, n)) => Ok(n),
        None => plain_number(text),
    }
}

fn plain_number(text: &str) -> Result<u32, String> {
    if text.starts_with('-') {
        return Err(format!("negative number ({text}) not allowed: {text}"));
    }
    text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
}

/// Go's durations: `1h30m`, `1.5s`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"].iter().filter(|u| rest[digits..].starts_with(**u));
        let Some(unit) = unit.max_by_key(|u| u.len()).filter(|_| digits > 0) else { return false };
        rest = &rest[digits + unit.len()..];
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for (schedule, error) in [
            ("*/5 * * * *", ""),
            ("0 0 1,15 jan-mar MON", ""),
            ("@daily", ""),
            ("@every 1h30m", ""),
            ("@every soon", "failed to parse duration @every soon: time: invalid duration \"soon\""),
            ("@fortnightly", "unrecognized descriptor: @fortnightly"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
        ] {
            assert_eq!(check(schedule).err().unwrap_or_default(), error, "{schedule}");
        }
    }
}
