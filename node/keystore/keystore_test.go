package keystore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pktcloud "github.com/pkt-cash/pkt-cloud"
	"github.com/pkt-cash/pkt-cloud/node/keystore"
)

// art is the official phrase of 32 zero bytes.
var art = strings.Repeat("abandon ", 23) + "art"

const about = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"

func read(t *testing.T, text string) keystore.Phrase {
	t.Helper()
	p, err := keystore.ReadPhrase(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func create(t *testing.T, path string, c keystore.Config) *keystore.Keystore {
	t.Helper()
	c.WorkFactor = 4
	k, err := keystore.Create(path, c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestReadPhrase(t *testing.T) {
	words := "legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth title"
	for _, tt := range []struct{ name, text, want string }{
		{"24 words", art, ""},
		{"12 words", about, ""},
		{"typed by a person", "  Abandon\n" + strings.Repeat("ABANDON\t ", 22) + " art\n", ""},
		{"none", "", "0 words"},
		{"13", about + " about", "13 words"},
		{"18 words, valid elsewhere", strings.Repeat("abandon ", 17) + "agent", "18 words"},
		{"pktwallet", strings.Repeat("abandon ", 14) + "address", "pktwallet, which is not BIP39"},
		{"unknown word", strings.Replace(words, "sausage", "sausagge", 1), `word 6, "sausagge", is not on the list; did you mean "sausage"?`},
		{"far from any word", strings.Replace(words, "wave", "qqqqqq", 1), `word 5, "qqqqqq", is not on the list`},
		{"checksum", strings.Replace(words, "title", "zoo", 1), "checksum is wrong: one is not the word"},
		{"exchanged", strings.Replace(words, "winner thank year wave sausage worth useful legal", "thank winner year wave sausage worth useful legal", 1), "checksum is wrong: words 2 and 3 may be exchanged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := keystore.ReadPhrase(tt.text)
			if tt.want == "" {
				if err != nil || strings.Join(p.Reveal(), " ") != strings.Join(strings.Fields(strings.ToLower(tt.text)), " ") {
					t.Errorf("got %q, %v", p.Reveal(), err)
				}
				return
			}
			if !errors.Is(err, keystore.ErrPhrase) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want ErrPhrase with %q", err, tt.want)
			}
			if !p.IsZero() {
				t.Error("a refused phrase came back")
			}
		})
	}
}

func TestRefusalsRepeatNoKnownWord(t *testing.T) {
	_, err := keystore.ReadPhrase(strings.Replace(art, "art", "zoo", 1))
	if err == nil || strings.Contains(err.Error(), "abandon") || strings.Contains(err.Error(), "zoo") {
		t.Errorf("got %v", err)
	}
}

func TestCreateAndOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "keystore.age")
	for _, c := range []keystore.Config{
		{Password: "a"}, {Password: "b", Phrase: read(t, about)}, {Password: "c", Phrase: read(t, art), Passphrase: "Ünïcode 密"},
	} {
		made := create(t, path, c)
		got, err := keystore.Open(path, c.Password)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Phrase().Reveal(), made.Phrase().Reveal()) || !bytes.Equal(got.Seed(), made.Seed()) || got.HasPassphrase() != (c.Passphrase != "") {
			t.Errorf("%s: the file gives another keystore back", c.Password)
		}
		if got.Identity().Public() != pktcloud.IdentityKey(made.Seed()).Public() || got.BackupKey() != pktcloud.BackupKey(made.Seed()) {
			t.Errorf("%s: keys are not those of the seed", c.Password)
		}
		if n := len(got.Phrase().Reveal()); c.Phrase.IsZero() && n != keystore.NewPhraseWords {
			t.Errorf("got a new phrase of %d words, want %d", n, keystore.NewPhraseWords)
		}
		if _, err := keystore.Create(path, keystore.Config{Password: "other", WorkFactor: 4}); !errors.Is(err, keystore.ErrExists) {
			t.Errorf("got %v, want ErrExists", err)
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(entries) != 1 {
			t.Errorf("got %v, %v, want one file and nothing left over", entries, err)
		}
		info, err := os.Stat(path)
		if err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
			t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestChangePassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	made := create(t, path, keystore.Config{Password: "old", Phrase: read(t, art), Passphrase: "extra"})
	for _, c := range []struct {
		old, password string
		want          error
	}{{"wrong", "new", keystore.ErrPassword}, {"old", "", keystore.ErrPassword}, {"old", "new", nil}, {"old", "newer", keystore.ErrPassword}} {
		if err := keystore.ChangePassword(path, c.old, c.password, 4); !errors.Is(err, c.want) {
			t.Errorf("%q to %q: got %v, want %v", c.old, c.password, err, c.want)
		}
	}
	got, err := keystore.Open(path, "new")
	if err != nil || !bytes.Equal(got.Seed(), made.Seed()) || !got.HasPassphrase() {
		t.Fatalf("the file gives another keystore back, or %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
	got.Forget()
	if len(got.Seed()) != 0 || !got.Phrase().IsZero() || got.HasPassphrase() {
		t.Error("a forgotten keystore still gives its seed or phrase")
	}
}

func TestOpenRefusals(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "k")
	create(t, path, keystore.Config{Password: "right"})
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, data []byte, mode fs.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for _, tt := range []struct {
		name, path, password string
		want                 error
	}{
		{"wrong password", path, "wrong", keystore.ErrPassword},
		{"no password", path, "", keystore.ErrPassword},
		{"no file", filepath.Join(dir, "none"), "right", fs.ErrNotExist},
		{"a directory", dir, "right", keystore.ErrDamaged},
		{"changed", put("flipped", flipped, 0o600), "right", keystore.ErrDamaged},
		{"cut", put("cut", good[:len(good)-1], 0o600), "right", keystore.ErrDamaged},
		{"empty", put("empty", nil, 0o600), "right", keystore.ErrDamaged},
		{"huge", put("huge", make([]byte, 1<<20), 0o600), "right", keystore.ErrDamaged},
		{"dear", put("dear", bytes.Replace(good, []byte(" 4\n"), []byte(" 30\n"), 1), 0o600), "right", keystore.ErrDamaged},
		{"readable by all", put("open", good, 0o644), "right", keystore.ErrExposed},
	} {
		if errors.Is(tt.want, keystore.ErrExposed) && runtime.GOOS == "windows" {
			continue
		}
		if _, err := keystore.Open(tt.path, tt.password); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestSecretsDoNotPrint walks every way in which a value ends up in a log.
func TestSecretsDoNotPrint(t *testing.T) {
	p := read(t, art)
	k := create(t, filepath.Join(t.TempDir(), "k"), keystore.Config{Password: "x", Phrase: p, Passphrase: "hush"})
	seed := fmt.Sprintf("%x", k.Seed())
	identity := k.Identity().Seed()
	for _, v := range []any{p, &p, k, *k, struct{ P keystore.Phrase }{p}, []keystore.Phrase{p}, k.Identity(), map[string]any{"k": k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			got := fmt.Sprintf(verb, v)
			for _, secret := range []string{"abandon", "hush", seed[:16], fmt.Sprintf("%x", "abandon"), fmt.Sprintf("%d", k.Seed()[:4]), fmt.Sprintf("%d", identity[:4])} {
				if strings.Contains(got, strings.Trim(secret, "[]")) {
					t.Errorf("%s of %T shows a secret: %s", verb, v, got)
				}
			}
		}
		if b, err := json.Marshal(v); err == nil && (bytes.Contains(b, []byte("abandon")) || bytes.Contains(b, []byte("hush"))) {
			t.Errorf("JSON of %T shows a secret: %s", v, b)
		}
	}
}

func TestOpenDevice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device.key")
	keys := make([]pktcloud.PublicKey, 8)
	var wait sync.WaitGroup
	for i := range keys {
		wait.Go(func() {
			k, err := keystore.OpenDevice(path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = k.Public()
		})
	}
	wait.Wait()
	if len(slices.Compact(keys)) != 1 {
		t.Error("processes that start at once got different device keys")
	}
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	for name, data := range map[string]string{"empty": "", "short": "00\n", "no hex": strings.Repeat("x", 64) + "\n", "no end": strings.Repeat("0", 65)} {
		p := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(p, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := keystore.OpenDevice(p, nil); !errors.Is(err, keystore.ErrDamaged) {
			t.Errorf("%s: got %v, want ErrDamaged", name, err)
		}
	}
	dangling := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("nowhere", dangling); err == nil {
		if _, err := keystore.OpenDevice(dangling, nil); err == nil {
			t.Error("a dangling link was followed")
		}
	}
}

func TestAccount(t *testing.T) {
	k := create(t, filepath.Join(t.TempDir(), "k"), keystore.Config{Password: "x"})
	device := pktcloud.NewPrivateKey([32]byte{1}).Public()
	now := time.Unix(1_767_225_600, 0)
	a, err := k.Account(1, now, []pktcloud.Device{keystore.NewDevice(device, "laptop", now)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := pktcloud.ParseAccount(b)
	if err != nil || got.Body.Identity != k.Identity().Public() {
		t.Fatalf("got %v, %v", got.Body.Identity, err)
	}
	if err := got.Body.Allows(device, now); err != nil {
		t.Error(err)
	}
}
