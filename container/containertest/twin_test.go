package containertest_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/container/containertest"
)

func TestTwin(t *testing.T) {
	twin, fixture := containertest.NewTwinWithPrograms()
	if err := containertest.TestRuntime(twin, fixture); err != nil {
		t.Error(err)
	}
	if err := twin.Close(); err != nil {
		t.Error(err)
	}
}
