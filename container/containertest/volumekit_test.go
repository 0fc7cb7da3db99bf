package containertest_test

import (
	"testing"

	"github.com/pkt-cash/pkt-cloud/container"
	"github.com/pkt-cash/pkt-cloud/container/containertest"
)

func TestTwinVolumes(t *testing.T) {
	twin, fixture := containertest.NewTwinWithPrograms()
	if err := containertest.TestVolumes(twin, fixture); err != nil {
		t.Error(err)
	}
	if err := twin.Close(); err != nil {
		t.Error(err)
	}
}

// TestTwinVolumeFull writes one byte more than there is.
func TestTwinVolumeFull(t *testing.T) {
	twin, fixture := containertest.NewTwinWithPrograms()
	defer twin.Close()
	img, err := twin.Pull(t.Context(), fixture.Ref, container.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	v := container.VolumeSpec{VolumeID: container.VolumeID{Lease: "l", Name: "v"}, SizeBytes: container.MinVolumeBytes}
	if err := twin.CreateVolume(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	s := container.Spec{ID: "c", Image: img.Digest, Limits: container.SmallLimits(), Lease: "l", Volumes: []container.Mount{{Volume: "v", Path: "/v"}}}
	if err := twin.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{fixture.FillFile("/v/all"), fixture.Write("/v/more", "x")} {
		if code, err := twin.Exec(t.Context(), "c", container.ExecSpec{Args: args}); err != nil || code == 0 {
			t.Errorf("%v: got %d, %v, want it to fail", args, code, err)
		}
	}
}
