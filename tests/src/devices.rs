use burn::tensor::Device;
use burn_lora::train::DeviceChoice;

/// Names the devices that the tests use.
const VARIABLE: &str = "BURN_LORA_TEST_DEVICES";

/// The devices that a run tests, `flex` unless the variable names others.
pub fn devices() -> Vec<Device> {
    named().into_iter().map(|(_, device)| device).collect()
}

/// Runs a test on each device. What a failing test prints tells on which.
pub fn on_each_device(test: impl Fn(Device)) {
    for (name, device) in named() {
        #[expect(
            clippy::print_stderr,
            reason = "shown by the test runner when the test fails"
        )]
        {
            eprintln!("on device {name}");
        }
        test(device);
    }
}

fn named() -> Vec<(String, Device)> {
    let names = std::env::var(VARIABLE).unwrap_or_else(|_| "flex".to_string());
    let devices: Vec<_> = names
        .split(',')
        .map(|name| name.trim().to_string())
        .filter(|name| !name.is_empty())
        .map(|name| {
            let device = device(&name);
            (name, device)
        })
        .collect();
    assert!(
        !devices.is_empty(),
        "{VARIABLE} names no device: a run of no test would pass"
    );
    devices
}

fn device(name: &str) -> Device {
    let device = DeviceChoice::resolve(Some(name)).and_then(DeviceChoice::open);
    device.unwrap_or_else(|error| panic!("{VARIABLE} names \"{name}\": {error}"))
}
