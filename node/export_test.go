package node

import "time"

// RenewEvery says how often a node looks at its offers when nothing happens.
func (c *Config) RenewEvery(d time.Duration) { c.renewEvery = d }
