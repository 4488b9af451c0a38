"""Why a plain RNN forgets and what makes an LSTM remember, by measurement."""
