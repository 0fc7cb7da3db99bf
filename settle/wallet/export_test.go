package wallet

// ScriptAt returns the script of a receiving address of account 0.
func (w *Wallet) ScriptAt(index uint32) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	script, err := w.keys.script(place{0, external, index})
	if err != nil {
		panic(err)
	}
	return script
}
