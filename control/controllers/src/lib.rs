//! Control loops: a pure reconcile each, one shared driver.
